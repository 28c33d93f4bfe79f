//! docs/architecture.md names files and items that exist.

use std::path::Path;

/// The links `[text](target)` of a Markdown text.
fn links(text: &str) -> Vec<(&str, &str)> {
    text.split('[')
        .skip(1)
        .filter_map(|rest| {
            let (label, rest) = rest.split_once("](")?;
            let (target, _) = rest.split_once(')')?;
            Some((label, target))
        })
        .collect()
}

/// Whether `source` defines an item of this name.
fn defines(source: &str, name: &str) -> bool {
    ["fn", "struct", "enum", "trait", "const"]
        .iter()
        .any(|kind| {
            source
                .match_indices(&format!("{kind} {name}"))
                .any(|(i, found)| {
                    let next = source[i + found.len()..].chars().next();
                    !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
                })
        })
}

#[test]
fn the_architecture_page_names_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/architecture.md")).expect("the page");
    let mut items = 0;
    for (label, target) in links(&page) {
        let Some(path) = target.strip_prefix("../") else {
            assert!(
                target.starts_with("https://"),
                "{target} is no path of the project"
            );
            continue;
        };
        let file = root.join(path);
        assert!(file.exists(), "{path} does not exist");
        let name = label.trim_matches('`');
        if name != path {
            let source = std::fs::read_to_string(&file).expect("a source file");
            assert!(defines(&source, name), "{path} defines no {name}");
            items += 1;
        }
    }
    assert!(items >= 30, "{items} items");
}

/// Every equation and algorithm of the page's table has a place.
#[test]
fn every_equation_has_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/architecture.md")).expect("the page");
    let (_, first) = page.split_once("2111.14822):").expect("the first paper");
    let (first, second) = first.split_once("2205.16007):").expect("the second paper");
    let listed = |table: &str, number: &str| {
        table.lines().any(|line| {
            let cell = line
                .trim_start_matches("| ")
                .split(" |")
                .next()
                .unwrap_or("");
            cell.split([' ', ',']).any(|word| word == number)
        })
    };
    for number in 1..=12 {
        assert!(listed(first, &number.to_string()), "equation {number}");
    }
    assert!(first.contains("| algorithm 1 |") && first.contains("| algorithm 2 |"));
    assert!(listed(second, "11"));
}
