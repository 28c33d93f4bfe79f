//! Samples of an epoch, and batches read ahead.

use std::panic::{catch_unwind, AssertUnwindSafe};

use vqdiffusion::data::dataset::Epoch;
use vqdiffusion::data::prefetch::prefetch;
use vqdiffusion::data::{DataError, Rows, SampleRow};

#[test]
fn rows_are_captions_or_pictures() {
    let item = |captions: usize| vqdiffusion::data::Item {
        picture: "x.png".into(),
        captions: vec!["caption".into(); captions],
        label: None,
    };
    let items = [0, 2, 0, 0, 1, 3, 0].map(item);
    let mut expected = Vec::new();
    for (item, captions) in items.iter().map(|item| item.captions.len()).enumerate() {
        expected.extend((0..captions).map(|n| SampleRow {
            item,
            caption: Some(n),
        }));
    }
    let rows = |epoch| {
        let rows = Rows::new(epoch, &items);
        let all: Vec<SampleRow> = (0..rows.len()).map(|n| rows.at(n)).collect();
        all
    };
    assert_eq!(rows(Epoch::Captions), expected);
    let pictures: Vec<usize> = rows(Epoch::Pictures).iter().map(|r| r.item).collect();
    assert_eq!(pictures, [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_thread_that_ends_early_is_an_error() {
    let numbers = |panics_at: u64| {
        let make = move |n| match n {
            _ if n == panics_at => panic!("the disk burns"),
            _ => Ok(10 * n),
        };
        prefetch(2, 3..7, make).unwrap()
    };
    let all: Result<Vec<u64>, DataError> = numbers(99).collect();
    assert_eq!(all.unwrap(), [30, 40, 50, 60]);
    let mut results = numbers(5);
    assert!(matches!(results.next(), Some(Ok(30))));
    assert!(matches!(results.next(), Some(Ok(40))));
    // The panic goes on where the result is asked for.
    let asked = catch_unwind(AssertUnwindSafe(|| results.next()));
    let panic = asked.expect_err("a panic");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the disk burns"));
    let error = results.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("has ended"), "{error}");
    assert!(results.next().is_none(), "all four numbers had an answer");
}
