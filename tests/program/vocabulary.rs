//! A text vocabulary of the model's own: learned from captions, kept by every layout.

use std::error::Error;
use std::path::Path;

use crate::running::{refuse, succeed};
use vqdiffusion::clip::tokenizer::train_vocabulary;
use vqdiffusion::clip::{ClipTokenizer, Merges};

type Outcome = Result<(), Box<dyn Error>>;

/// Pairs of this text by hand: "low" ×5, "lower" ×2, "newest" ×6, "widest" ×3 (the example
/// of Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units").
/// The first: "e"+"s" 9 times, with "s"+"t" of "est": of equally frequent pairs that with
/// the smaller ids, then what the rules leave.
#[test]
fn rules_by_hand() -> Outcome {
    let mut texts = Vec::new();
    for (word, count) in [("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)] {
        texts.extend(std::iter::repeat_n(word, count));
    }
    let merges = train_vocabulary(texts.iter().copied(), 514 + 4)?;
    let text = merges.to_text();
    let rules: Vec<&str> = text.lines().skip(1).collect();
    // e s: 9, s t</w>: 9, with e before s in the order of ids. Then "es t</w>": 9.
    // Then l o: 7 (low 5, lower 2), while "o w</w>" 5, "n e" 6, "e w" 6.
    assert_eq!(&rules[..3], ["e s", "es t</w>", "l o"]);
    // n e (6) and e w (6) and w est</w> (6): e w has the smallest ids.
    assert_eq!(rules[3], "e w");
    let tokenizer = ClipTokenizer::from_merges(merges.clone())?;
    assert_eq!(tokenizer.vocab_size(), 518);
    // n, ew, est</w>
    assert_eq!(tokenizer.tokenize("newest")?.len(), 3);
    // The ids of the rules are 512 and up: "lo" is the third.
    assert_eq!(tokenizer.tokenize("lot")?[0], 512 + 2);
    assert_eq!(Merges::from_ids(&merges.ids())?, merges);
    assert!(Merges::from_ids(&[[512, 0]]).is_err());
    Ok(())
}

#[test]
fn same_captions_give_the_same_rules() -> Outcome {
    let texts = [
        "red heart, noto style",
        "red apple, noto style",
        "green apple",
    ];
    let first = train_vocabulary(texts.into_iter(), 530)?;
    for _ in 0..5 {
        assert_eq!(train_vocabulary(texts.into_iter(), 530)?, first);
    }
    Ok(())
}

/// CLIP's own list is read from transformers' form of it and gives CLIP's ids.
#[test]
fn a_written_list_is_read_again() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("merges.txt");
    let clip = Merges::clip(2000)?;
    std::fs::write(&file, clip.to_text())?;
    assert_eq!(Merges::read(&file)?, clip);
    for (text, problem) in [
        ("#version: 0.2\na b\nab c d\n", ":3:"),
        ("#version: 0.2\nab c\n", "'ab' is neither"),
        ("#version: 0.2\na b\na b\n", "makes 'ab' already"),
        ("#version: 0.2\nab\n", "not two symbols"),
    ] {
        std::fs::write(&file, text)?;
        let found = Merges::read(&file).expect_err(text).to_string();
        assert!(found.contains(problem), "{found}");
    }
    Ok(())
}

fn captions(folder: &Path) -> Outcome {
    let mut lines = String::new();
    for i in 0..3 {
        image::RgbImage::new(8, 8).save(folder.join(format!("{i}.png")))?;
        lines.push_str(&format!(
            "{{\"file\": \"{i}.png\", \"captions\": [\"red heart\", \"a red apple\"]}}\n"
        ));
    }
    std::fs::write(folder.join("captions.jsonl"), lines)?;
    Ok(())
}

#[test]
fn the_command_learns_and_refuses() -> Outcome {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    captions(&data)?;
    let out = folder.path().join("merges.txt");
    let train = |size: &'static str, more: &[&'static str]| {
        let mut arguments = vec!["train-vocabulary", "data", "--size", size];
        arguments.extend(["--out", "merges.txt"]);
        arguments.extend(more);
        arguments
    };
    let here = folder.path();
    let said = succeed(here, &train("518", &[]));
    assert!(said.contains("518 entries; 6 captions"), "{said}");
    assert_eq!(Merges::read(&out)?.vocabulary_size(), 518);
    refuse(here, &train("518", &[]), &["merges.txt", "--overwrite"]);
    succeed(here, &train("520", &["--overwrite"]));
    let impossible = ["--size 5000", "entries only"];
    refuse(here, &train("5000", &["--overwrite"]), &impossible);
    assert_eq!(Merges::read(&out)?.vocabulary_size(), 520, "left as it was");
    refuse(here, &train("514", &["--overwrite"]), &["--size"]);
    Ok(())
}
