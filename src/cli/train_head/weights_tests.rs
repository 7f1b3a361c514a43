#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn given(text: &str) -> Vec<(String, f64)> {
    match text.parse().unwrap() {
        NamedWeights::Given(weights) => weights,
        other => panic!("{other:?}"),
    }
}

fn owned(weights: &[(&str, f64)]) -> Vec<(String, f64)> {
    weights
        .iter()
        .map(|(class, weight)| ((*class).to_owned(), *weight))
        .collect()
}

#[test]
fn any_name_of_a_class_can_be_written_and_is_written_so_that_it_is_read_again() {
    for (text, weights) in [
        ("cat=2,dog=0.5", &[("cat", 2.0), ("dog", 0.5)][..]),
        ("a=b=2", &[("a=b", 2.0)]),
        ("Maine Coon = 2 , dog=1", &[("Maine Coon", 2.0), ("dog", 1.0)]),
        (
            r#""Maine, Coon"=2,"a=1,b=2"=3, "x" = 4"#,
            &[("Maine, Coon", 2.0), ("a=1,b=2", 3.0), ("x", 4.0)],
        ),
        (r#""5\" tall"=2"#, &[("5\" tall", 2.0)]),
        (
            r#""@home"=2,"[x"=3," y "=4"#,
            &[("@home", 2.0), ("[x", 3.0), (" y ", 4.0)],
        ),
        ("balanced=2", &[("balanced", 2.0)]),
    ] {
        let read = given(text);
        assert_eq!(read, owned(weights), "{text}");
        let written = NamedWeights::Given(read).to_string();
        assert_eq!(given(&written), owned(weights), "{text}: {written}");
    }
}

#[test]
fn a_file_gives_the_same_weights_as_the_option() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("@{}", path.display())
    };
    let expected = owned(&[("Maine, Coon", 2.0), ("dog", 0.5)]);
    for text in [
        file("w.toml", "\"Maine, Coon\" = 2\ndog = 0.5\n"),
        file("w.JSON", "\u{feff}{\"Maine, Coon\": 2, \"dog\": 0.5}"),
    ] {
        assert_eq!(given(&text), expected);
    }
    for (name, text, words) in [
        ("a.toml", "dog = 'much'", "line 1"),
        ("b.toml", "a.b = 1", "no list of weights"),
        ("c.toml", "dog = 1\ndog = 2", "line 2"),
        ("d.json", "{\"dog\": 1, \"dog\": 2}", "`dog` has two weights"),
        ("e.json", "[1, 2]", "no list of weights"),
        ("f.toml", "", "names no class"),
        ("g.csv", "dog,1", "ends neither in .toml nor in .json"),
    ] {
        let text = file(name, text);
        let said = text.parse::<NamedWeights>().unwrap_err();
        assert!(said.contains(words), "{name}: {said}");
        assert!(
            words.starts_with('`') || words.starts_with("names") || said.contains(name),
            "{said}"
        );
    }
    let said = "@none.toml".parse::<NamedWeights>().unwrap_err();
    assert!(said.starts_with("`none.toml` can't be read"), "{said}");
}

#[test]
fn what_is_no_weight_is_told_by_its_class() {
    for (text, words) in [
        ("cat=much", "`much` of `cat`"),
        ("most", "`most` is neither"),
        ("\"cat=1", "does not end"),
        ("\"cat\"", "\"cat\"=WEIGHT"),
        ("cat=1,cat=2", "`cat` has two weights"),
        ("cat=1,", "`` is neither"),
    ] {
        let said = text.parse::<NamedWeights>().unwrap_err();
        assert!(said.contains(words), "{text}: {said}");
    }
}
