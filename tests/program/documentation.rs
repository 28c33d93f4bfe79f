//! The commands that the documentation shows are ones that the program takes.

use std::path::{Path, PathBuf};

use vqdiffusion::experiment::codec::CodecExperiment;
use vqdiffusion::experiment::Experiment;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of the `sh` blocks of a Markdown text, those that end in a backslash joined.
fn shell_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for block in text.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        lines.extend(block.replace("\\\n", " ").lines().map(String::from));
    }
    lines
}

/// The words of the first command of a line, as a shell takes them apart.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ';' | '|' | '>') => break,
            (None, '&') if characters.peek() == Some(&'&') => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// `line` with the variables that the lines before set, `NAME="…"`.
fn expanded(line: &str, variables: &[(String, String)]) -> String {
    let mut parts = line.split('$');
    let mut line = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, rest) = part.split_at(end.unwrap_or(part.len()));
        match variables.iter().rfind(|(known, _)| known == name) {
            Some((_, value)) => line.push_str(value),
            None => line.extend(["$", name]),
        }
        line.push_str(rest);
    }
    line
}

fn commands(text: &str) -> Vec<Vec<String>> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut commands = Vec::new();
    for line in shell_lines(text) {
        let assigned = words(&line);
        if let [first, name, _, value, ..] = assigned.as_slice() {
            // A loop is gone through once.
            if first == "for" {
                variables.push((name.clone(), value.clone()));
                continue;
            }
        }
        if let [assignment] = assigned.as_slice() {
            if let Some((name, value)) = assignment.split_once('=') {
                variables.push((name.into(), value.into()));
                continue;
            }
        }
        let words = words(&expanded(&line, &variables));
        let start = words.iter().position(|word| {
            word == "vqdiffusion" || (word.ends_with("/vqdiffusion") && !word.contains('='))
        });
        if let Some(start) = start {
            commands.push(words[start..].to_vec());
        }
    }
    commands
}

fn pages() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root().join("docs")).expect("a folder");
    let mut pages: Vec<PathBuf> = docs
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    pages.extend(["README.md", "checkpoints/README.md"].map(|name| root().join(name)));
    pages.sort();
    pages
}

#[test]
fn shell_words() {
    assert_eq!(words("a 'b c' \"d\"e # f"), ["a", "b c", "de"]);
    assert_eq!(words("a=b#c x=[1, 2] | d"), ["a=b#c", "x=[1,", "2]"]);
    let text = "```sh\nc=\"--x 1\"\nA=1 vqdiffusion y \\\n  $c $cc && z\n```\n";
    assert_eq!(commands(text), [["vqdiffusion", "y", "--x", "1", "$cc"]]);
}

/// Arguments are those of the commands, and settings those of the experiment they are for.
#[test]
fn every_command_of_the_documentation_is_one() {
    let mut count = 0;
    let mut experiments = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("a page");
        for command in commands(&text) {
            let shown = format!("{}: {}", page.display(), command.join(" "));
            let matches = vqdiffusion::cli::command_line()
                .try_get_matches_from(&command)
                .unwrap_or_else(|e| panic!("{shown}: {e}"));
            count += 1;
            let Some((name @ ("train" | "train-codec"), matches)) = matches.subcommand() else {
                continue;
            };
            let given = matches
                .get_one::<PathBuf>("config")
                .expect("a configuration");
            let overrides: Vec<String> = matches
                .get_many("overrides")
                .map(|values| values.cloned().collect())
                .unwrap_or_default();
            if given.starts_with("configs") {
                read(name, &root().join(given), &overrides)
                    .unwrap_or_else(|e| panic!("{shown}: {e}"));
                experiments += 1;
            }
        }
    }
    assert!(count > 60 && experiments > 12, "{count}, {experiments}");
}

fn read(command: &str, path: &Path, overrides: &[String]) -> Result<(), String> {
    match command {
        "train" => Experiment::read(path, overrides).map(drop),
        _ => CodecExperiment::read(path, overrides).map(drop),
    }
    .map_err(|e| e.to_string())
}

/// The examples of `train --help` are about configurations that are there.
#[test]
fn the_examples_of_the_help_name_what_is_there() {
    let mut command = vqdiffusion::cli::command_line();
    for name in ["train", "train-codec"] {
        let help = command
            .find_subcommand_mut(name)
            .expect(name)
            .render_long_help()
            .to_string();
        let configs = help
            .split_whitespace()
            .filter(|word| word.starts_with("configs/"));
        let configs: Vec<&str> = configs.collect();
        assert!(!configs.is_empty(), "{name}");
        for config in configs {
            assert!(root().join(config).is_file(), "{config}");
        }
    }
}
