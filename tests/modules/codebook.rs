//! The codebook's arithmetic against the original implementation, by hand, and on
//! clusters whose centres are known.

use std::sync::atomic::AtomicBool;

use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};
use vqdiffusion::codec::codebook::{k_means, nearest, CodeStatistics, EmaCodebook};
use vqdiffusion::random::unit;

use crate::drawn::drawn;

/// Nothing stops a start.
static GO_ON: AtomicBool = AtomicBool::new(false);

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous().view([-1])).expect("numbers")
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// Two updates of the official `EMAVectorQuantizer` (decay 0.9, ε = 1e-5), recorded.
#[test]
fn updates_equal_the_original() {
    let recorded = Tensor::read_safetensors("tests/codebook/emavq.safetensors").unwrap();
    let get = |name: &str| {
        let found = recorded.iter().find(|(n, _)| n == name);
        found
            .unwrap_or_else(|| panic!("no {name}"))
            .1
            .shallow_clone()
    };
    let mut book = EmaCodebook::new(get("input.emavq.embedding").copy());
    for pass in 0..2 {
        let name = |what: &str| format!("expected.emavq.{pass}.{what}");
        let z = get("input.emavq.z") * 0.5f64.powi(pass); // [2, 6, 4, 4]
        let rows = z.permute([0, 2, 3, 1]).reshape([-1, 6]); // [P, E]
        let codes = nearest(&rows, &book.embedding); // [P]
        assert_eq!(
            numbers(&codes),
            numbers(&get(&name("index"))),
            "pass {pass}"
        );
        let quantized = book.embedding.index_select(0, &codes);
        let expected = get(&name("quantize"))
            .permute([0, 2, 3, 1])
            .reshape([-1, 6]);
        assert!(difference(&quantized, &expected) < 1e-6);
        let loss = (&rows - &quantized).square().mean(Kind::Float);
        assert!(difference(&loss, &get(&name("loss"))) < 1e-6);

        book.update(&CodeStatistics::new(&rows, &codes, 10), 0.9, 1e-5);
        for (what, ours) in [
            ("cluster_size_after", &book.cluster_size),
            ("embedding_avg_after", &book.embedding_avg),
            ("embedding_after", &book.embedding),
        ] {
            let expected = get(&name(what));
            let scale = expected.abs().max().double_value(&[]);
            let error = difference(ours, &expected) / scale;
            assert!(error < 1e-5, "pass {pass}: {what} differs by {error}");
        }
    }
}

/// Two entries, three vectors: every number worked out by hand.
#[test]
fn one_update_by_hand() {
    let mut book = EmaCodebook::new(Tensor::from_slice(&[0f32, 0.0, 4.0, 4.0]).view([2, 2]));
    let z = Tensor::from_slice(&[1f32, 0.0, 0.0, 1.0, 3.0, 5.0]).view([3, 2]);
    let codes = nearest(&z, &book.embedding);
    assert_eq!(numbers(&codes), [0.0, 0.0, 1.0]);
    let statistics = CodeStatistics::new(&z, &codes, 2);
    assert_eq!(numbers(&statistics.counts), [2.0, 1.0]);
    assert_eq!(numbers(&statistics.sums), [1.0, 1.0, 3.0, 5.0]);
    book.update(&statistics, 0.5, 0.25);
    assert_eq!(numbers(&book.cluster_size), [1.0, 0.5]);
    // s = ½·(0, 0) + ½·(1, 1) and ½·(4, 4) + ½·(3, 5).
    assert_eq!(numbers(&book.embedding_avg), [0.5, 0.5, 3.5, 4.5]);
    // n = 1.5, n + N·ε = 2: ñ = (1.25, 0.75) / 2 · 1.5.
    let sizes = [0.9375, 0.5625];
    let expected = [
        0.5 / sizes[0],
        0.5 / sizes[0],
        3.5 / sizes[1],
        4.5 / sizes[1],
    ];
    for (ours, expected) in numbers(&book.embedding).iter().zip(expected) {
        assert!((ours - expected).abs() < 1e-6, "{ours} is not {expected}");
    }
}

fn generator() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

/// `count` points within 0.1 of each of 12 centres on a lattice of spacing 3.
fn clusters(count: i64) -> (Tensor, Tensor) {
    let options = (Kind::Float, Device::Cpu);
    let index = Tensor::arange(12, options);
    let columns = [&index.fmod(3.0), &(&index / 3.0).floor(), &(&index * 0.0)];
    let centers = Tensor::stack(&columns, 1) * 3.0; // [12, 3]
    let noise = (drawn(3, || Tensor::rand([12, count, 3], options)) - 0.5) * 0.2;
    let points = (centers.unsqueeze(1) + noise).view([-1, 3]);
    (points, centers)
}

#[test]
fn k_means_finds_separate_clusters() {
    let (points, centers) = clusters(50);
    let mut generator = generator();
    let (found, counts) =
        k_means(&points, 12, &mut || unit(&mut generator), &GO_ON).expect("centres");
    // Every true centre has one found within the noise of its mean, with all its points.
    let nearest_found = nearest(&centers, &found);
    let mut places = numbers(&nearest_found);
    places.sort_by(f64::total_cmp);
    places.dedup();
    assert_eq!(places.len(), 12);
    assert!(difference(&found.index_select(0, &nearest_found), &centers) < 0.1);
    assert_eq!(numbers(&counts), [50.0; 12]);
    // A centre is the mean of its points.
    let codes = nearest(&points, &found);
    for code in 0..12 {
        let own = points.index_select(0, &codes.eq(code).nonzero().squeeze_dim(1));
        let mean = own.mean_dim(0, false, Kind::Float);
        assert!(difference(&mean, &found.get(code)) < 1e-5);
    }
}

#[test]
fn start_fills_the_statistics() {
    let (points, _) = clusters(20);
    let mut book = EmaCodebook::new(drawn(5, || {
        Tensor::randn([12, 3], (Kind::Float, Device::Cpu))
    }));
    let mut generator = generator();
    let started = book.start_from(&points, 60.0, &mut || unit(&mut generator), &GO_ON);
    assert!(started.is_continue());
    // 240 vectors, 20 each, scaled to a batch of 60: 5 each.
    assert_eq!(numbers(&book.cluster_size), [5.0; 12]);
    assert!(difference(&book.embedding_avg, &(&book.embedding * 5.0)) < 1e-4);
    assert!(nearest(&points, &book.embedding).max().int64_value(&[]) < 12);
}

/// Vectors that an entry matches already are never drawn, however many there are.
#[test]
fn dead_entries_leave_what_is_matched_alone() {
    let mut book = EmaCodebook::new(Tensor::from_slice(&[0f32, 0.0, 9.0, 9.0]).view([2, 2]));
    book.cluster_size.copy_(&Tensor::from_slice(&[10f32, 0.0]));
    let mut z = vec![0f32; 2000];
    z.extend([3.0, 4.0]);
    let z = Tensor::from_slice(&z).view([-1, 2]);
    let mut generator = generator();
    assert_eq!(book.revive(&z, 0.1, &mut || unit(&mut generator)), 1);
    assert_eq!(numbers(&book.embedding.get(1)), [3.0, 4.0]);
}

#[test]
fn dead_entries_move_to_vectors_of_the_batch() {
    let table: Vec<f32> = (0..8).map(|n| n as f32).collect();
    let mut book = EmaCodebook::new(Tensor::from_slice(&table).view([4, 2]));
    book.cluster_size
        .copy_(&Tensor::from_slice(&[10f32, 0.1, 9.9, 0.0]));
    book.embedding_avg
        .copy_(&(&book.embedding * book.cluster_size.unsqueeze(1)));
    let before = book.embedding.copy();
    let z = Tensor::from_slice(&[100f32, 200.0, 300.0, 400.0]).view([2, 2]);
    let mut generator = generator();
    // The mean count is 5: entries 1 and 3 are below a tenth of it.
    assert_eq!(book.revive(&z, 0.1, &mut || unit(&mut generator)), 2);
    assert_eq!(
        numbers(&book.cluster_size),
        [10f32, 5.0, 9.9f32, 5.0].map(f64::from)
    );
    for kept in [0, 2] {
        assert!(book.embedding.get(kept).equal(&before.get(kept)));
    }
    for moved in [1, 3] {
        let row = numbers(&book.embedding.get(moved));
        assert!(row == [100.0, 200.0] || row == [300.0, 400.0], "{row:?}");
        let sums = numbers(&book.embedding_avg.get(moved));
        assert_eq!(sums, [row[0] * 5.0, row[1] * 5.0]);
    }
    // An update with no use of them keeps them where they are.
    let before = book.embedding.copy();
    let none = CodeStatistics::new(&z.narrow(0, 0, 0), &Tensor::from_slice::<i64>(&[]), 4);
    book.update(&none, 0.99, 1e-9);
    assert!(difference(&book.embedding, &before) < 1e-3);
    assert_eq!(book.revive(&z, 0.1, &mut || unit(&mut generator)), 0);
}

/// With a price the nearest entry is that of least ‖z − e‖² − λ ln p, by enumeration.
#[test]
fn prices_make_the_nearest_entry_the_cheapest() {
    let options = (Kind::Float, Device::Cpu);
    let entries =
        Tensor::from_slice(&[0f32, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 2.0, 0.0]);
    let mut book = EmaCodebook::new(entries.view([4, 3]));
    let counts = [400f32, 30.0, 30.0, 2.0];
    book.cluster_size.copy_(&Tensor::from_slice(&counts));
    assert_eq!(book.price_weight(), 0.0);
    book.set_prices(0.3);
    assert!((book.price_weight() - 0.3).abs() < 1e-6);

    let least = counts.iter().sum::<f32>() / 4.0 * 1e-3;
    let price = |k: usize| 0.3 * f64::from((counts[0] + least) / (counts[k] + least)).ln();
    let channel = numbers(&book.embedding.select(1, 2).square());
    for (k, found) in channel.into_iter().enumerate() {
        assert!((found - price(k)).abs() < 1e-5, "{k}: {found}");
    }
    let picture = drawn(3, || Tensor::rand([500, 2], options)) * 2.5;
    let z = Tensor::cat(&[&picture, &Tensor::zeros([500, 1], options)], 1);
    let (z, table) = (numbers(&z), numbers(&book.embedding));
    let cost = |row: usize, k: usize| {
        let square = |d: usize| (z[3 * row + d] - table[3 * k + d]).powi(2);
        square(0) + square(1) + price(k)
    };
    let found = nearest(
        &Tensor::from_slice(&z).view([500, 3]),
        &book.embedding.to_kind(Kind::Double),
    );
    let mut moved = 0;
    for (row, code) in numbers(&found).into_iter().enumerate() {
        let best = (0..4).min_by(|&a, &b| cost(row, a).total_cmp(&cost(row, b)));
        assert_eq!(best, Some(code as usize), "{row}");
        let free =
            (0..4).min_by(|&a, &b| (cost(row, a) - price(a)).total_cmp(&(cost(row, b) - price(b))));
        moved += usize::from(best != free);
    }
    assert!(moved > 20, "the prices decide {moved} of 500");
}

/// The codes' entropy comes down to the bound, and a bound that it keeps anyway changes nothing.
#[test]
fn prices_follow_the_entropy() {
    let options = (Kind::Float, Device::Cpu);
    let picture = drawn(4, || {
        let dense = Tensor::randn([1600, 2], options) * 0.2;
        let wide = (Tensor::rand([400, 2], options) - 0.5) * 10.0;
        Tensor::cat(&[dense, wide], 0)
    });
    let z = Tensor::cat(&[&picture, &Tensor::zeros([2000, 1], options)], 1);
    let entropy = |codes: &Tensor| {
        let counts = numbers(&codes.bincount(None::<&Tensor>, 32));
        let shares = counts.iter().map(|n| n / 2000.0).filter(|&p| p > 0.0);
        -shares.map(|p| p * p.ln()).sum::<f64>()
    };
    let trained = |most: f64| {
        let mut book = EmaCodebook::new(Tensor::zeros([32, 3], options));
        let mut generator = generator();
        let started = book.start_from(&z, 2000.0, &mut || unit(&mut generator), &GO_ON);
        assert!(started.is_continue());
        let free = nearest(&z, &book.embedding);
        for _ in 0..600 {
            let codes = nearest(&z, &book.embedding);
            let statistics = CodeStatistics::new(&z, &codes, 32);
            let error = (&z - book.embedding.index_select(0, &codes)).square();
            let error = error.sum(Kind::Double).double_value(&[]) / 2000.0;
            let weight = book.next_price_weight(error, &statistics, most);
            book.update(&statistics, 0.99, 1e-5);
            book.set_prices(weight);
        }
        (free, nearest(&z, &book.embedding))
    };
    let (free, priced) = trained(1.5);
    assert!(entropy(&free) > 2.2, "{}", entropy(&free));
    assert!((entropy(&priced) - 1.5).abs() < 0.1, "{}", entropy(&priced));

    let (free, kept) = trained(3.4);
    assert!((entropy(&free) - entropy(&kept)).abs() < 0.1);
}
