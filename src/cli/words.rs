//! What serde says of a document, in the words of those who wrote the document.

/// A message with serde's names of Rust types replaced by what a file may hold there.
pub fn in_words(message: &str) -> String {
    let message = message.replace("unknown variant `", "unknown value `");
    for kind in ["invalid type: ", "invalid value: ", "invalid length "] {
        let Some((head, rest)) = message.split_once(kind) else {
            continue;
        };
        let Some((found, expected)) = rest.rsplit_once(", expected ") else {
            continue;
        };
        let found = match kind {
            "invalid length " => format!("a list of {found}"),
            _ => value(found),
        };
        return format!("{head}found {found}, expected {}", wanted(expected));
    }
    match message.split_once("data did not match any variant of untagged enum ") {
        Some((head, rest)) => {
            let behind = rest.find(|c: char| !c.is_alphanumeric());
            let behind = behind.map_or("", |at| &rest[at..]);
            format!("{head}has none of the known forms{behind}")
        }
        None => message,
    }
}

/// A value as serde describes it: ``integer `5` ``, `string "x"`, `unit value`.
fn value(found: &str) -> String {
    let found = found.strip_suffix(" as u128").unwrap_or(found);
    let found = found.strip_suffix(" as i128").unwrap_or(found);
    for kind in ["integer", "floating point", "boolean", "character"] {
        let quoted = found.strip_prefix(kind).map(str::trim);
        if let Some(inner) = quoted.and_then(|q| q.strip_prefix('`')?.strip_suffix('`')) {
            return inner.to_string();
        }
    }
    match found {
        "unit value" | "null" | "Option value" => "nothing".into(),
        "sequence" => "a list".into(),
        "map" => "a mapping".into(),
        _ => found.strip_prefix("string ").unwrap_or(found).to_string(),
    }
}

/// What serde expected, with what follows it (`at line 2 column 3`).
fn wanted(expected: &str) -> String {
    let end = [" at line ", "; "].iter().filter_map(|s| expected.find(s));
    let (kind, behind) = expected.split_at(end.min().unwrap_or(expected.len()));
    let first = kind.split([' ', ',']).next().unwrap_or_default();
    let words = match (first, kind) {
        ("u8" | "u16" | "u32" | "u64" | "u128" | "usize", _) => "a whole number, not negative",
        ("i8" | "i16" | "i32" | "i64" | "i128" | "isize", _) => "a whole number",
        ("f32" | "f64", _) => "a number",
        ("struct" | "map" | "internally" | "adjacently", _) | (_, "a map") => "a mapping",
        ("enum" | "variant", _) => "one of the known names",
        ("string" | "str" | "borrowed", _) | (_, "a string" | "a borrowed string") => "text",
        ("path", _) => "a path",
        ("bool" | "boolean", _) | (_, "a boolean") => "true or false",
        ("sequence", _) | (_, "a sequence") => "a list",
        ("unit", _) => "nothing",
        (_, "any YAML value" | "any valid JSON value") => "a smaller number",
        _ => {
            let length = ["an array of length ", "a tuple of size "];
            return match length.iter().find_map(|what| kind.strip_prefix(what)) {
                Some(length) => format!("a list of {length}{behind}"),
                None => expected.to_string(),
            };
        }
    };
    format!("{words}{behind}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use serde::Deserialize;

    use super::in_words;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Name {
        One,
    }

    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Count(#[allow(dead_code)] u8),
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    #[allow(dead_code)]
    struct Document {
        count: usize,
        signed: i64,
        rate: f64,
        text: String,
        path: PathBuf,
        flag: bool,
        list: Vec<u8>,
        pair: [f64; 2],
        inner: BTreeMap<String, u8>,
        name: Option<Name>,
        part: Option<Box<Document>>,
        form: Option<Form>,
    }

    #[test]
    fn no_type_of_the_program_is_named() {
        let cases = [
            (
                "count: -5",
                "found -5, expected a whole number, not negative",
            ),
            (
                "count: 1.5",
                "found 1.5, expected a whole number, not negative",
            ),
            (
                "count: 99999999999999999999999",
                "found 99999999999999999999999, expected",
            ),
            ("signed: x", "found \"x\", expected a whole number"),
            ("rate: [1]", "found a list, expected a number"),
            ("text: {a: 1}", "found a mapping, expected text"),
            ("path: [1]", "found a list, expected a path"),
            ("flag: 3", "found 3, expected true or false"),
            ("list: true", "found true, expected a list"),
            ("pair: [1.0]", "found a list of 1, expected a list of 2"),
            ("inner: 3", "found 3, expected a mapping"),
            ("name: two", "unknown value `two`"),
            (
                "part: ', expected x'",
                "found \", expected x\", expected a mapping",
            ),
            (
                "part: {part: {rate: ~}}",
                "found nothing, expected a number",
            ),
            ("form: x", "has none of the known forms"),
        ];
        for (yaml, wanted) in cases {
            let error = serde_yaml::from_str::<Document>(yaml)
                .unwrap_err()
                .to_string();
            let said = in_words(&error);
            assert!(said.contains(wanted), "{yaml}: {error}: {said}");
            for rust in [
                "usize", "i64", "f64", "struct", "enum", "Document", "Form", "unit",
            ] {
                assert!(!said.contains(rust), "{yaml}: {said}");
            }
        }
        let error = serde_json::from_str::<Document>("{\n\"part\": 7}").unwrap_err();
        let wanted = "found 7, expected a mapping at line 2 column 9";
        assert_eq!(in_words(&error.to_string()), wanted);
    }

    #[test]
    fn other_messages_stay() {
        for text in [
            "a.pth: no such file",
            "missing field `steps`",
            "x is 5, expected 3",
        ] {
            assert_eq!(in_words(text), text);
        }
    }
}
