//! The tokeniser against published vectors, a table made with Python, and the
//! captions of the reference fixtures.

use std::error::Error;
use std::path::{Path, PathBuf};

use safetensors::{SafeTensors, View};
use serde_json::Value;
use vqdiffusion::clip::tokenizer::{ClipTokenizer, TokenizerError, FULL_VOCABULARY};
use vqdiffusion::clip::{MergesError, TokenRule};

type TestResult = Result<(), Box<dyn Error>>;

/// A vocabulary with 1278 merge rules, as one of the fixtures has.
const SHORT_VOCABULARY: usize = 1792;

fn integers(value: &Value) -> Vec<i64> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_i64).collect()
}

#[test]
fn published_vectors() -> TestResult {
    let tokenizer = ClipTokenizer::new(FULL_VOCABULARY)?;
    let vectors: [(&str, &[i64]); 6] = [
        ("", &[]),
        (
            "teddy bear playing in the pool",
            &[11798, 4298, 1629, 530, 518, 2831],
        ),
        (
            "A Dog!  and   a cat &amp; mouse",
            &[320, 1929, 256, 537, 320, 2368, 261, 9301],
        ),
        ("café ÉCLAIR 123", &[15304, 3459, 14039, 272, 273, 274]),
        ("it's 50% off", &[585, 568, 276, 271, 260, 1007]),
        ("“quoted” text", &[257, 27706, 257, 4160]),
    ];
    for (text, ids) in vectors {
        let encoding = tokenizer.encode(text)?;
        let mut expected = vec![49406];
        expected.extend(ids);
        expected.push(49407);
        let len = expected.len();
        expected.resize(77, 0);
        assert_eq!(encoding.ids, expected, "{text:?}");
        assert!(encoding
            .mask
            .iter()
            .enumerate()
            .all(|(i, &m)| m == (i < len)));
        assert!(!encoding.truncated);
    }
    Ok(())
}

#[test]
fn golden_table() -> TestResult {
    let table = std::fs::read("tests/tokenizer_golden.json")?;
    let table: Value = serde_json::from_slice(&table)?;
    let rows = table.as_array().ok_or("the table is not an array")?;
    assert!(rows.len() >= 40);
    for (column, size) in [("ids", FULL_VOCABULARY), ("short_ids", SHORT_VOCABULARY)] {
        let tokenizer = ClipTokenizer::new(size)?;
        for row in rows {
            let text = row["text"].as_str().ok_or("a row has no text")?;
            let encoding = tokenizer.encode(text)?;
            let real = encoding.mask.iter().filter(|&&real| real).count();
            assert_eq!(encoding.ids[..real], integers(&row[column]), "{text:?}");
            assert!(encoding.ids[real..].iter().all(|&id| id == 0));
        }
    }
    Ok(())
}

#[test]
fn too_long_a_text_keeps_its_end_marker() -> TestResult {
    let tokenizer = ClipTokenizer::new(FULL_VOCABULARY)?;
    let fits = tokenizer.encode(&"cat ".repeat(75))?;
    assert!(!fits.truncated);
    let cut = tokenizer.encode(&"cat ".repeat(76))?;
    assert!(cut.truncated);
    assert_eq!(fits.ids, cut.ids);
    assert_eq!(cut.ids[76], tokenizer.end_id());

    let short = tokenizer.with_context_length(4)?;
    assert_eq!(short.encode("a cat")?.ids.len(), 4);
    assert!(short.encode("a cat sat")?.truncated);
    Ok(())
}

#[test]
fn decoding_gives_the_cleaned_text_and_one_label_per_position() -> TestResult {
    let tokenizer = ClipTokenizer::new(FULL_VOCABULARY)?;
    let ids = tokenizer.encode("A Café, antidisestablishment 🐱!")?.ids;
    assert_eq!(tokenizer.decode(&ids), "a café , antidisestablishment 🐱!");
    let labels = tokenizer.token_strings(&ids);
    assert_eq!(labels.len(), 77);
    assert_eq!(labels[..4], ["<|startoftext|>", "a", "café", ","]);
    assert_eq!(labels[76], "");
    let end = ids.iter().position(|&id| id == tokenizer.end_id());
    assert_eq!(labels[end.ok_or("no end marker")?], "<|endoftext|>");
    assert_eq!(labels[4..].concat(), "antidisestablishment🐱!<|endoftext|>");
    assert_eq!(
        tokenizer.decode(&[-1, 320, 1_000_000]),
        "\u{fffd}a \u{fffd}"
    );
    assert_eq!(tokenizer.decode(&[]), "");
    Ok(())
}

#[test]
fn words_hold_all_their_tokens() -> TestResult {
    let words = |tokenizer: &ClipTokenizer, text: &str| -> Result<Vec<_>, Box<dyn Error>> {
        let ids = tokenizer.encode(text)?.ids;
        let words = tokenizer.words(&ids).into_iter();
        Ok(words.map(|(word, at)| (word, at.start, at.end)).collect())
    };
    let word = |text: &str, start: usize, end: usize| (text.to_string(), start, end);
    let bytes_only = ClipTokenizer::new(514)?.with_context_length(12)?;
    assert_eq!(
        words(&bytes_only, "a café!")?,
        [
            word("<|startoftext|>", 0, 1),
            word("a", 1, 2),
            word("café", 2, 7), // é is two bytes
            word("!", 7, 8),
            word("<|endoftext|>", 8, 9),
        ]
    );
    // A cut text ends within a word.
    let short = bytes_only.with_context_length(5)?;
    assert_eq!(
        words(&short, "a cats")?,
        [
            word("<|startoftext|>", 0, 1),
            word("a", 1, 2),
            word("ca", 2, 4),
            word("<|endoftext|>", 4, 5),
        ]
    );
    // Where end markers fill the context, the first one ends the text.
    let filled = ClipTokenizer::new(FULL_VOCABULARY)?.with_rule(TokenRule::DiffusersEndPadding);
    assert_eq!(
        words(&filled, "a dog")?,
        [
            word("<|startoftext|>", 0, 1),
            word("a", 1, 2),
            word("dog", 2, 3),
            word("<|endoftext|>", 3, 4),
        ]
    );
    Ok(())
}

#[test]
fn impossible_sizes_are_refused() -> TestResult {
    for size in [0, 513, FULL_VOCABULARY + 1] {
        let refused = ClipTokenizer::new(size);
        assert!(matches!(
            refused,
            Err(TokenizerError::Merges(MergesError::Size { requested, .. })) if requested == size
        ));
    }
    let bytes_only = ClipTokenizer::new(514)?;
    assert_eq!(bytes_only.tokenize("cat")?.len(), 3);
    let refused = bytes_only.with_context_length(1);
    assert!(matches!(refused, Err(TokenizerError::ContextLength(1))));
    Ok(())
}

#[test]
fn any_text_is_encoded() -> TestResult {
    let tokenizer = ClipTokenizer::new(FULL_VOCABULARY)?;
    for unit in ["Ã©", "â\u{81}", "&", "&#", "é¢", "\u{1b}[", "a"] {
        let text = unit.repeat(400_000 / unit.chars().count());
        assert!(tokenizer.encode(&text)?.truncated, "{unit:?}");
    }
    Ok(())
}

/// Where the reference fixtures are, and whether they have to be there.
fn fixtures() -> (PathBuf, bool) {
    match std::env::var_os("VQDIFFUSION_FIXTURES") {
        Some(path) => (path.into(), true),
        None => ("tests/fixtures".into(), false),
    }
}

fn compare_with_fixture(case: &str, vocab_size: usize) -> TestResult {
    let (root, required) = fixtures();
    let dir = root.join(case);
    if !required && !dir.join("captions.json").exists() {
        eprintln!("{case}: no fixture under {}, skipped", root.display());
        return Ok(());
    }
    let captions = read(&dir.join("captions.json"))?;
    let captions: Value = serde_json::from_slice(&captions)?;
    let captions = captions.as_array().ok_or("captions.json is not an array")?;
    let reference = read(&dir.join("reference.safetensors"))?;
    let reference = SafeTensors::deserialize(&reference)?;
    let tokens = reference.tensor("expected.text.tokens")?;
    let mask = reference.tensor("expected.text.mask")?;
    assert_eq!(tokens.shape(), [captions.len(), 77]);
    assert_eq!(mask.shape(), tokens.shape());
    // The mask is stored as bytes or as 64-bit integers.
    let mask_width = mask.data_len() / (captions.len() * 77);

    let tokenizer = ClipTokenizer::new(vocab_size)?;
    for (row, caption) in captions.iter().enumerate() {
        let text = caption["text"].as_str().ok_or("a caption has no text")?;
        let encoding = tokenizer.encode(text)?;
        let expected: Vec<i64> = tokens
            .data()
            .chunks_exact(8)
            .skip(row * 77)
            .take(77)
            .map(|bytes| bytes.try_into().map(i64::from_le_bytes))
            .collect::<Result<_, _>>()?;
        assert_eq!(encoding.ids, expected, "{text:?}");
        let cells = mask.data().chunks_exact(mask_width).skip(row * 77).take(77);
        let expected: Vec<bool> = cells.map(|cell| cell.iter().any(|&b| b != 0)).collect();
        assert_eq!(encoding.mask, expected, "{text:?}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[test]
fn captions_of_text_tiny() -> TestResult {
    compare_with_fixture("text_tiny", FULL_VOCABULARY)
}

#[test]
fn captions_of_text_conv_abs() -> TestResult {
    compare_with_fixture("text_conv_abs", SHORT_VOCABULARY)
}

/// Ids of transformers 4.46.3 (`CLIPTokenizer` with ftfy 6.3.1) where `!` is the padding,
/// as in the published pipeline, without the padding behind them.
#[test]
fn pipeline_tokenizer_with_exclamation_padding() -> TestResult {
    let vectors: [(&str, &[i64]); 10] = [
        ("A Dog! and a cat", &[320, 1929, 0, 537, 320, 2368, 49407]),
        ("wow!!! great !", &[2781, 0, 0, 0, 830, 0, 49407]),
        ("Tom &amp; Jerry &lt;3", &[2435, 261, 9164, 283, 274, 49407]),
        ("a &amp;amp; b", &[320, 261, 321, 49407]),
        (
            "x<|endoftext|>Y <|STARTOFTEXT|> z",
            &[343, 49407, 344, 49406, 345, 49407],
        ),
        ("<|startoftext|>!a", &[49406, 0, 320, 49407]),
        (
            "schÃ¶n ﬁne “x”",
            &[844, 7255, 333, 3797, 257, 343, 257, 49407],
        ),
        ("日本の山!", &[39121, 44353, 21575, 46096, 365, 0, 49407]),
        ("  spaces\tand\nnewlines ", &[9006, 537, 1218, 3418, 49407]),
        ("!", &[0, 49407]),
    ];
    let tokenizer = ClipTokenizer::new(FULL_VOCABULARY)?.with_rule(TokenRule::Diffusers);
    for (text, ids) in vectors {
        let mut expected = vec![49406];
        expected.extend(ids);
        let length = expected.len();
        expected.resize(77, 0);
        let encoding = tokenizer.encode(text)?;
        assert_eq!(encoding.ids, expected, "{text:?}");
        assert_eq!(encoding.mask.iter().filter(|&&m| m).count(), length);
    }
    // A text that is too long loses its end marker.
    let long = tokenizer.encode(&format!("a{}", " cat".repeat(80)))?;
    let mut expected = vec![2368; 77];
    expected[..2].copy_from_slice(&[49406, 320]);
    assert_eq!(long.ids, expected);
    assert!(long.truncated && long.mask.iter().all(|&m| m));
    Ok(())
}

/// Where end markers are the padding, they are no part of the text.
#[test]
fn end_padding_is_not_text() -> TestResult {
    let tokenizer = ClipTokenizer::new(FULL_VOCABULARY)?.with_rule(TokenRule::DiffusersEndPadding);
    let ids = tokenizer.encode("a cat!")?.ids;
    assert_eq!(ids[..5], [49406, 320, 2368, 256, 49407]);
    assert!(ids[5..].iter().all(|&id| id == 49407));
    assert_eq!(tokenizer.decode(&ids), "a cat !");
    let labels = tokenizer.token_strings(&ids);
    assert_eq!(labels[4], "<|endoftext|>");
    assert!(labels[5..].iter().all(String::is_empty));
    Ok(())
}
