//! How runs, their heads and their folder are called, and what is a column.
use super::*;

#[test]
fn a_run_is_called_by_its_name_its_folder_or_how_that_begins() {
    let scene = three();
    let found = |word: &str| -> String {
        scene.run(["runs", "show", word, "--json"]).code(0).json()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for (word, id) in [
        ("latest", B),
        ("best", B),
        (A, A),
        ("20261123", C),
        ("20261124-08", A),
        ("slow", C),
        ("runs/20261124-080000-plain", A),
        ("runs/20261124-080000-plain/", A),
    ] {
        assert_eq!(found(word), id, "{word}");
    }
    scene
        .run(["runs", "show", "20261124"])
        .error(2, &["`20261124` could be several runs in `runs`:", A, B, "say more"]);
    scene
        .run(["runs", "show", "sl"])
        .error(2, &["there is no run `sl`", "the newest is `20261124-090000-fast`"]);
    // From elsewhere by its path, or by the folder of the runs.
    scene.rename("runs", "kept");
    scene.run(["runs", "show", A]).code(2);
    assert_eq!(
        scene
            .run(["runs", "show", &format!("kept/{A}"), "--json"])
            .code(0)
            .json()["id"],
        A
    );
    assert_eq!(
        scene
            .run(["runs", "show", "slow", "--runs", "kept", "--json"])
            .code(0)
            .json()["id"],
        C
    );
    assert_eq!(
        scene.run(["runs", "--runs", "kept", "--json"]).code(0).json()["runs"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn the_heads_that_a_sweep_kept_are_called_by_their_ranks() {
    let scene = three();
    let (sweep, head) = ("20261124-110000-sweep", |rank: &str| {
        format!("20261124-110000-sweep/{rank}")
    });
    write_run(&scene, sweep, &Given { name: "sweep", ..GIVEN });
    edit_json(&scene, &format!("runs/{sweep}/run.json"), &|run| {
        run["kind"] = json!("sweep");
    });
    for rank in 1..=12 {
        let id = head(&format!("{rank:02}"));
        let accuracy = 1.0 - f64::from(rank) / 1000.0;
        let given = Given {
            name: "head",
            val_accuracy: accuracy,
            ..GIVEN
        };
        write_run(&scene, "20261124-110000-head", &given);
        scene.rename("runs/20261124-110000-head", &format!("runs/{id}"));
    }
    for (word, rank) in [
        ("sweep/1", "01"),
        ("sweep/01", "01"),
        ("sweep/001", "01"),
        ("sweep/12", "12"),
        ("latest/1", "01"),
        ("latest/10", "10"),
        ("best", "01"),
        ("best/1", "01"),
        ("best/2", "02"),
        ("20261124-11/3", "03"),
        ("20261124-110000-sweep/3", "03"),
        ("20261124-110000-sweep/03", "03"),
        ("runs/20261124-110000-sweep/3", "03"),
        ("runs/20261124-110000-sweep/03/", "03"),
    ] {
        assert_eq!(found(&scene, word), head(rank), "{word}");
    }
    scene.run(["runs", "show", "latest/13"]).error(
        2,
        &[
            "there is no run `latest/13`: `20261124-110000-sweep` kept 12 heads",
            "`20261124-110000-sweep/1` to `20261124-110000-sweep/12`",
        ],
    );
    scene
        .run(["runs", "show", "plain/1"])
        .error(2, &["`20261124-080000-plain` kept no head", "the run of one head"]);
    scene
        .run(["runs", "show", "nothing/1"])
        .error(2, &["there is no run `nothing`"]);
    // Elsewhere, by the path.
    scene.rename("runs", "kept");
    assert_eq!(found(&scene, "kept/20261124-110000-sweep/3"), head("03"));
    let diff = ["runs", "diff", "latest/1", "best/12", "--runs", "kept", "--json"];
    let report = scene.run(diff).code(0).json();
    assert_eq!((&report["a"], &report["b"]), (&json!(head("01")), &json!(head("12"))));
}

#[test]
fn the_folder_of_the_runs_is_named_before_or_after_each_verb_and_options_of_the_list_too() {
    let scene = three();
    scene.rename("runs", "kept");
    for verb in [
        &["list"][..],
        &["list", "--json"],
        &["show", "plain"],
        &["show", "latest", "--json"],
        &["diff", "plain", "fast"],
        &["compare", "plain", "fast", "slow"],
    ] {
        let (name, rest) = verb.split_first().unwrap();
        let run = |before: &[&str], middle: &[&str], after: &[&str]| -> String {
            let words = [&["runs"], before, &[*name], middle, rest, after].concat();
            scene.run(words).code(0).stdout
        };
        let runs = ["--runs", "kept"];
        let expected = run(&runs, &[], &[]);
        assert!(expected.contains("2026112"), "{expected}");
        assert_eq!(run(&[], &runs, &[]), expected, "{verb:?}");
        assert_eq!(run(&[], &[], &runs), expected, "{verb:?}");
    }
    let limited = |words: &[&str]| scene.run([&["runs", "--runs", "kept"], words].concat()).code(0).stdout;
    assert_eq!(limited(&["--limit", "1", "list"]), limited(&["list", "--limit", "1"]));
    assert_eq!(limited(&["--limit", "1", "list"]).lines().count(), 2);
    assert_eq!(
        limited(&["--filter", "lr<0.01", "list", "--filter", "lr>0.0001", "--csv"])
            .lines()
            .count(),
        2
    );
    scene
        .run(["runs", "--runs", "kept", "--limit", "1", "show", "plain"])
        .code(2)
        .says(&["--limit is an option of `runs list` alone"]);
}

#[test]
fn what_is_filtered_or_sorted_by_has_one_column() {
    let scene = three();
    let headings = |words: &[&str]| -> Vec<String> {
        let table = scene.run([&["runs"], words].concat()).code(0).stdout;
        let heading = table.lines().next().unwrap().to_owned();
        heading
            .split("  ")
            .filter(|cell| !cell.is_empty())
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let plain = headings(&[]);
    for filter in [
        "state=complete",
        "State=complete",
        "solver.lr<1",
        "LR<1",
        "learning-rate<1",
        "val-accuracy>0",
        "metrics.val_accuracy>0",
        "config.dataset.named=cats4",
        "created>2000",
    ] {
        let expected = match filter {
            "config.dataset.named=cats4" => 1,
            _ => 0,
        };
        assert_eq!(
            headings(&["--filter", filter]).len(),
            plain.len() + expected,
            "{filter}"
        );
    }
    let twice = headings(&[
        "--filter",
        "val_loss<1",
        "--filter",
        "val-loss>0",
        "--sort",
        "metrics.val_loss",
    ]);
    assert_eq!(twice.len(), plain.len() + 1, "{twice:?}");
    // The epochs that were trained and those that were asked for are two things.
    let epochs = headings(&["--filter", "epochs>0", "--filter", "solver.epochs>0"]);
    assert_eq!(epochs.len(), plain.len() + 1, "both are 25 here: {epochs:?}");
    edit_json(&scene, &format!("runs/{A}/metrics.json"), &|metrics| {
        metrics["epochs"] = json!(9);
    });
    let epochs = headings(&["--filter", "epochs>0", "--filter", "solver.epochs>0"]);
    assert_eq!(epochs.len(), plain.len() + 2, "{epochs:?}");
    let csv = scene.run([
        "runs",
        "--csv",
        "--filter",
        "state=complete",
        "--sort",
        "val_accuracy_low",
    ]);
    assert!(
        csv.exit != Some(0),
        "no key: the ends of the interval are columns of CSV only"
    );
}
