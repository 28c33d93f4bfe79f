//! What mojibake looks like: characters and sequences that hardly ever are meant.
//!
//! The categories of characters and the sequences are those of ftfy 6.3.1 (© Robyn Speer,
//! Apache License 2.0, see LICENSE-ftfy beside this file): they decide which texts are
//! changed, so they are kept to the letter.

use std::sync::LazyLock;

use regex::Regex;

const COMMON: &str = "\u{a0}\u{ad}·´–—―…’";
const C1: &str = "\u{80}-\u{9f}";
const BAD: &str = "¦¤¨¬¯¸ƒˆˇ˘˛˜†‡‰⌐◊\u{fffd}ªº";
const LAW: &str = "¶§";
const CURRENCY: &str = "¢£¥₧€";
const START: &str = "¡«¿©΄΅‘‚“„•‹\u{f8ff}";
const END: &str = "®»˝”›™";
const NUMERIC: &str = "²³¹±¼½¾×µ÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№";
/// Letters that faces made of characters use.
const KAOMOJI: &str = "Ò-ÖÙ-Üò-öø-üŐŌŪŲ°";
const UPPER_ACCENTED: &str = "À-ÑØÜÝĂĀĄĆČĎĐĘĚĒĖĞĢİĪĶĹĽŁĻŃŇŅŒŘŚŞŠŢŤŮŰŸŹŻŽҐ";
const LOWER_ACCENTED: &str = "ßà-ñăąāćčďđęěēėğģįīķĺľłļœŕśşšťüźżžґﬁﬂ";
const UPPER_COMMON: &str = "ÞΑ-ΩΆΈΉΊΌΎΏΪΫЁ-Я";
const LOWER_COMMON: &str = "α-ωάέήίΰа-џ";
const BOX: &str = "│┌┐┘├┤┬┼═-╬▀▄█▌▐░▒▓";
/// Python's idea of a space and of a character of a word.
const SPACE: &str = r"\s\x1c-\x1f";
const WORD: &str = r"\p{L}\p{N}_";

/// Whether `text` holds a sequence that is probably mojibake.
pub(super) fn is_bad(text: &str) -> bool {
    BADNESS.is_match(text)
}

static BADNESS: LazyLock<Regex> = LazyLock::new(|| {
    // A sequence of classes.
    let class = |parts: &[&str]| format!("[{}]", parts.concat());
    let arabic = [
        class(&["ØÙ"]),
        class(&[COMMON, CURRENCY, BAD, NUMERIC, START, "ŸŠ®°µ»"]),
    ]
    .concat();
    let cyrillic = class(&["ВГРС"]);
    let greek = class(&["ΒΓΞΟ"]);
    let any_accented = [LOWER_ACCENTED, UPPER_ACCENTED].concat();
    let any_accented = any_accented.as_str();
    let beside_bad = [any_accented, BOX, START, END, CURRENCY, NUMERIC, LAW].concat();
    let beside_bad = beside_bad.as_str();
    let sequences: Vec<Vec<String>> = vec![
        vec![class(&[C1])],
        vec![class(&[BAD, beside_bad]), class(&[BAD])],
        vec![
            class(&["a-zA-Z"]),
            class(&[LOWER_COMMON, UPPER_COMMON]),
            class(&[BAD]),
        ],
        vec![class(&[BAD]), class(&[beside_bad])],
        vec![
            class(&[LOWER_ACCENTED, LOWER_COMMON, BOX, END, CURRENCY, NUMERIC]),
            class(&[UPPER_ACCENTED]),
        ],
        vec![
            class(&[BOX, END, CURRENCY, NUMERIC]),
            class(&[LOWER_ACCENTED]),
        ],
        vec![class(&[LOWER_ACCENTED, BOX, END]), class(&[CURRENCY])],
        vec![
            class(&[SPACE]),
            class(&[UPPER_ACCENTED]),
            class(&[CURRENCY]),
        ],
        vec![class(&[UPPER_ACCENTED, BOX]), class(&[NUMERIC, LAW])],
        vec![
            class(&[any_accented, BOX, CURRENCY, END]),
            class(&[START]),
            class(&[NUMERIC]),
        ],
        vec![
            class(&[any_accented, CURRENCY, NUMERIC, BOX, LAW]),
            class(&[END]),
            class(&[START]),
        ],
        vec![class(&[CURRENCY, NUMERIC, BOX]), class(&[START])],
        vec![
            class(&["a-z"]),
            class(&[UPPER_ACCENTED]),
            class(&[START, CURRENCY]),
        ],
        vec![class(&[BOX]), class(&[KAOMOJI])],
        vec![
            class(&[any_accented, CURRENCY, NUMERIC, START, END, LAW]),
            class(&[BOX]),
        ],
        vec![class(&[BOX]), class(&[END])],
        vec![class(&[any_accented]), class(&[START, END]), class(&[WORD])],
        vec!["[Œœ]".into(), r"[^A-Za-z]".into()],
        vec![class(&[UPPER_ACCENTED]), "°".into()],
        // Windows-1252.
        vec![
            "[ÂÃÎÐ]".into(),
            class(&["€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»", START, END, "–—´"]),
        ],
        vec!["×[²³]".into()],
        vec![arabic.clone(), arabic],
        vec!["à[²µ¹¼½¾]".into()],
        // MacRoman.
        vec!["√[±∂†≠®™´≤≥¥µø]".into()],
        vec!["≈[°¢]".into()],
        vec!["‚Ä[ìîïòôúùû†°¢π]".into()],
        vec!["‚[âó][àä°ê]".into()],
        // Windows-1251.
        vec!["вЂ".into()],
        vec![
            cyrillic.clone(),
            class(&[C1, BAD, START, END, CURRENCY, "°µ"]),
            cyrillic,
        ],
        vec!["ГўВЂВ".into(), r"[^\n]".into(), "[A-Za-z ]".into()],
        // à, á and the no-break space in Windows-1252.
        vec!["Ã[\u{a0}¡]".into()],
        vec!["[a-z]".into(), format!("[{SPACE}]?"), "[ÃÂ] ".into()],
        vec!["^[ÃÂ] ".into()],
        vec![
            class(&["a-z.,?!", END]),
            "Â".into(),
            class(&[" ", START, END]),
        ],
        // Windows-1253.
        vec!["β€[™\u{a0}Ά\u{ad}®°]".into()],
        vec![
            greek.clone(),
            class(&[C1, BAD, START, END, CURRENCY, "°"]),
            greek,
        ],
        // Windows-1257.
        vec!["ā€".into()],
    ];
    let sequences: Vec<String> = sequences.iter().map(|parts| parts.concat()).collect();
    Regex::new(&sequences.join("|")).expect("a valid pattern")
});

const FIRST_OF_2: &str = "ÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßĀĂĆČĎĐĒĖĘĚĞĢĪİĶĹĻŁŃŅŇŌŐŘŚŞŠŢŪŮŰŲŹŻŽ\
                          ΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΪΫάέήίВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ";
const FIRST_OF_3: &str = "àáâãäåæçèéêëìíîïāăąćčďēėęěģīįķĺļŕźΰαβγδεζηθικλμνξοабвгдежзийклмноп";
const FIRST_OF_4: &str = "ðóđğšπσру";
const CONTINUATION_STRICT: &str = "\u{80}-\u{bf}ÆØæøĄąĽľŁłŒœŖŗŚśŞşŠšŤťŸŹźŻżŽžƒˆˇ˘˛˜˝΄΅ΆΈΉΊΌΎΏ\
                                   ЁЂЃЄЅІЇЈЉЊЋЌЎЏёђѓєѕіїјљњћќўџҐґ†‡‰‹›€№™";
/// These are too common to speak against mojibake behind them. A space may have been a
/// no-break space.
const CONTINUATION_MORE: &str = " –—―‘’‚“”„•…";

/// One UTF-8 sequence of bytes that were read as characters.
static SEQUENCE: LazyLock<String> = LazyLock::new(|| {
    let next = format!("[{CONTINUATION_STRICT}{CONTINUATION_MORE}]");
    format!("(?:[{FIRST_OF_2}]{next}|[{FIRST_OF_3}]{next}{{2}}|[{FIRST_OF_4}]{next}{{3}})")
});
static ONE_SEQUENCE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(&SEQUENCE).expect("a valid pattern"));
static RUN_OF_SEQUENCES: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(&format!("^{}+", *SEQUENCE)).expect("a valid pattern"));
static IS_CONTINUATION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(&format!("[{CONTINUATION_STRICT}]$")).expect("a valid pattern"));

/// The next run of sequences that look like UTF-8, from byte `from` of `text` on. None
/// begins behind a continuation: a part of a larger garble would only make it worse.
pub(super) fn next_run(text: &str, from: usize) -> Option<std::ops::Range<usize>> {
    let mut from = from;
    while let Some(found) = ONE_SEQUENCE.find_at(text, from) {
        let start = found.start();
        let before = text[..start].chars().next_back();
        let mut letter = [0; 4];
        let is_inside =
            before.is_some_and(|c| IS_CONTINUATION.is_match(c.encode_utf8(&mut letter)));
        if !is_inside {
            let run = RUN_OF_SEQUENCES.find(&text[start..])?;
            return Some(start..start + run.end());
        }
        from = start + text[start..].chars().next().map_or(1, char::len_utf8);
    }
    None
}
