//! Labels: short texts drawn as black on white.

use noto_sans_mono_bitmap::{get_raster, get_raster_width, FontWeight, RasterHeight};
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::UnicodeNormalization;

use super::Picture;

const WEIGHT: FontWeight = FontWeight::Regular;
const HEIGHT: RasterHeight = RasterHeight::Size16;
/// Pixels of a line from top to top.
pub const LINE: u32 = HEIGHT.val() as u32;
/// What ends a text that was cut.
const CUT: &str = "...";

/// `text` in lines of at most `width` pixels, broken between words where possible; what
/// does not fit into `most` lines is cut.
pub fn lines(text: &str, width: u32, most: usize) -> Vec<String> {
    let columns = width as usize / get_raster_width(WEIGHT, HEIGHT);
    let columns = columns.max(CUT.len());
    let mut lines: Vec<Vec<char>> = Vec::new();
    for word in drawable(text).split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= columns => {
                line.push(' ');
                line.append(&mut word);
            }
            _ => lines.extend(word.chunks(columns).map(<[char]>::to_vec)),
        }
    }
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            last.truncate(columns - CUT.len());
            last.extend(CUT.chars());
        }
    }
    lines.into_iter().map(String::from_iter).collect()
}

/// The characters that the font has. Of others their base letters if it has these (ế
/// becomes e), else U+FFFD.
fn drawable(text: &str) -> String {
    let known = |c: &char| get_raster(*c, WEIGHT, HEIGHT).is_some();
    let mut out = String::new();
    for c in text.nfc() {
        if known(&c) || c.is_whitespace() {
            out.push(c);
            continue;
        }
        let length = out.len();
        out.extend(std::iter::once(c).nfkd().filter(known));
        if out.len() == length && !is_combining_mark(c) {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
    out
}

/// Draws `lines` into `picture`, each in the middle between `left` and `left + width`,
/// from `top` down.
pub fn draw(picture: &mut Picture, lines: &[String], left: u32, top: u32, width: u32) {
    let advance = get_raster_width(WEIGHT, HEIGHT) as u32;
    for (line, text) in (0..).zip(lines) {
        let length = text.chars().count() as u32 * advance;
        let start = left + width.saturating_sub(length) / 2;
        for (i, c) in (0..).zip(text.chars()) {
            let Some(raster) = get_raster(c, WEIGHT, HEIGHT) else {
                continue;
            };
            for (dy, row) in (0..).zip(raster.rows()) {
                for (dx, &ink) in (0..).zip(row) {
                    darken(
                        picture,
                        start + i * advance + dx,
                        top + line * LINE + dy,
                        ink,
                    );
                }
            }
        }
    }
}

/// Takes `ink` from a pixel that lies in the picture.
fn darken(picture: &mut Picture, x: u32, y: u32, ink: u8) {
    if x < picture.width && y < picture.height {
        let at = 3 * (y as usize * picture.width as usize + x as usize);
        for value in &mut picture.rgb[at..at + 3] {
            *value = value.saturating_sub(ink);
        }
    }
}

/// A line of text, black on white, as wide as it is.
pub fn text_line(text: &str) -> Picture {
    let text = drawable(text);
    let width = text.chars().count().max(1) * get_raster_width(WEIGHT, HEIGHT);
    let mut line = Picture {
        width: width as u32,
        height: LINE,
        rgb: vec![255; 3 * width * LINE as usize],
    };
    draw(&mut line, &[text], 0, 0, width as u32);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_end_with_a_cut() {
        let width = 10 * get_raster_width(WEIGHT, HEIGHT) as u32 + 3;
        assert_eq!(lines("red heart", width, 3), ["red heart"]);
        assert_eq!(
            lines(" a\tpurple \n apple", width, 3),
            ["a purple", "apple"]
        );
        assert_eq!(lines("rhododendrons", width, 3), ["rhododendr", "ons"]);
        assert_eq!(
            lines("one two three four five six", width, 2),
            ["one two", "three f..."]
        );
        assert!(lines(" ", width, 3).is_empty());
    }

    #[test]
    fn characters_that_the_font_lacks_become_their_letters_or_a_sign() {
        // Composed or not, é is in the font; ế is not, and neither is 猫 nor an emoji.
        assert_eq!(drawable("caf\u{e9} cafe\u{301}"), "caf\u{e9} caf\u{e9}");
        assert_eq!(drawable("\u{1ebf}\u{fb01}"), "efi");
        assert_eq!(drawable("\u{732b}\u{2764}\u{fe0f}!"), "\u{fffd}\u{fffd}!");
    }

    #[test]
    fn a_line_is_drawn_in_the_middle() {
        let mut picture = Picture {
            width: 41,
            height: LINE,
            rgb: vec![255; 3 * 41 * LINE as usize],
        };
        draw(&mut picture, &["H".into()], 1, 0, 40);
        let dark = |x: u32, y: u32| picture.rgb[3 * (y * 41 + x) as usize] < 128;
        let columns: Vec<u32> = (0..41).filter(|&x| (0..LINE).any(|y| dark(x, y))).collect();
        let (first, last) = (columns[0], columns[columns.len() - 1]);
        assert!(
            (20..=21).contains(&((first + last).div_ceil(2))),
            "{columns:?}"
        );
        // The cross-bar: the letter's columns are two strokes and what joins them.
        assert!((0..LINE).any(|y| (first..=last).all(|x| dark(x, y))));
        assert!((0..LINE).any(|y| dark(first, y) && !dark((first + last) / 2, y)));
    }
}
