#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn read(text: &str) -> Result<SweepSpec> {
    SweepSpec::parse_toml(text, Path::new("sweep.toml"))
}

fn grids(text: &str) -> Vec<Vec<String>> {
    let spec = read(text).unwrap();
    let line = |axis: &Axis| format!("{}: {}", axis.name, axis.values.join(" "));
    spec.grids
        .iter()
        .map(|grid| grid.axes.iter().map(line).collect())
        .collect()
}

#[test]
fn a_file_says_what_the_option_says() {
    let file = "
        lr = \"1e-4..1e-1:log4\"
        weight-decay = [0, 1e-4, 0.001]
        momentum = 0.9
        nesterov = [true, false]
        solver = \"sgd,adamw\"
        milestones = [\"5,10\", \"[10,20]\"]
        seed = [\"0..2\", 1_0]
    ";
    let option = "lr=1e-4..1e-1:log4,weight-decay=0,1e-4,1e-3,momentum=0.9,nesterov=true,false,solver=sgd,adamw,\
                  milestones=[5,10],[10,20],seed=0..2,10";
    let mut spec = read(file).unwrap();
    let axes = spec.grids.iter_mut().flat_map(|grid| &mut grid.axes);
    axes.for_each(|axis| axis.origin = None);
    assert_eq!(spec, SweepSpec::parse(option).unwrap());
}

#[test]
fn tables_are_grids_and_share_what_stands_above_them() {
    let text = "
        standardize = [true, false]
        seed = 1
        [zebra]
        solver = 'sgd'
        lr = [0.1, 0.01]
        [apple]
        solver = 'lbfgs'
        seed = 2
        C = '1e-2..1e2:log5'
    ";
    assert_eq!(
        grids(text),
        [
            vec!["standardize: true false", "seed: 1", "solver: sgd", "lr: 0.1 0.01"],
            vec![
                "standardize: true false",
                "solver: lbfgs",
                "seed: 2",
                "C: 0.01 0.1 1 10 100"
            ],
        ]
    );
    assert_eq!(grids("[[grid]]\nC = 1\n[[grid]]\nlr = 2"), [["C: 1"], ["lr: 2"]]);
}

#[test]
fn what_is_no_sweep_is_refused() {
    for (text, words) in [
        ("lr = ", "is not TOML"),
        ("", "varies nothing"),
        ("[a]\n[b]\nlr = 1", "varies nothing"),
        ("lr = []", "axis `lr`: has no value"),
        ("lr = [[1]]", "axis `lr`: is an array in an array"),
        ("lr = 2020-01-01", "axis `lr`: is a date"),
        ("[a.b]\nlr = 1", "axis `b`: is a table in a table"),
        ("seed = 0x10", "not decimal"),
        ("lr = '1..2'\nmomentum = '0.1..0.5'", "axis `momentum`: `0.1..0.5`"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.to_string().contains(words), "{text}: {error}");
        assert!(error.hint().is_some());
    }
    let missing = SweepSpec::read(Path::new("no-such-sweep.toml")).unwrap_err();
    assert!(missing.to_string().contains("no-such-sweep.toml"));
}

#[test]
fn an_error_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grid.toml");
    std::fs::write(&path, "seed = '4..0'").unwrap();
    let said = SweepSpec::read(&path).unwrap_err().to_string();
    assert!(
        said.contains("grid.toml` line 1, axis `seed`: `4..0` does not ascend"),
        "{said}"
    );
}
