//! The library's messages name fields of its types. Here they become what a user of the
//! command line can give: options of most commands, keys of an experiment in training.

/// Fields and the options that set them.
const OPTIONS: &[(&str, &str)] = &[
    ("OpenOptions::config", "--config"),
    ("OpenOptions::weights", "--weights"),
    ("OpenOptions::mapping", "--mapping"),
    ("OpenOptions::codec", "--codec"),
    ("OpenOptions::text_encoder", "--text-encoder"),
    ("OpenOptions::vocabulary", "--vocabulary"),
];

/// Fields and the keys of an experiment that set them.
const KEYS: &[(&str, &str)] = &[
    ("OpenOptions::config", "weights.config"),
    ("OpenOptions::weights", "the weights"),
    ("OpenOptions::mapping", "weights.mapping"),
    ("OpenOptions::codec", "weights.codec"),
    ("OpenOptions::text_encoder", "weights.text"),
    ("OpenOptions::vocabulary", "weights.vocabulary"),
    ("weights.init_from", "weights.init_from (--init-from)"),
];

/// A message of the library with the fields that it names as options.
pub fn as_options(message: &str) -> String {
    renamed(message, OPTIONS)
}

/// A message of the library with the fields that it names as keys of an experiment.
pub fn as_keys(message: &str) -> String {
    renamed(message, KEYS)
}

fn renamed(message: &str, names: &[(&str, &str)]) -> String {
    names
        .iter()
        .fold(message.to_string(), |text, (field, name)| {
            text.replace(field, name)
        })
}
