//! What averaging gradients costs: bytes of a step, and the time that they take.

use std::fmt;

use super::settings::GradientFormat;

/// The gradients that several processes add up in a step.
#[derive(Clone, Copy, Debug)]
pub struct Reduction {
    /// Trained values.
    pub values: u64,
    pub processes: usize,
    pub format: GradientFormat,
}

/// A link between processes.
struct Link {
    name: &'static str,
    /// Bytes a second, each way.
    rate: f64,
}

/// Between the GPUs of one machine, and between machines.
const LINKS: [Link; 2] = [
    Link {
        name: "NVLink",
        rate: 350e9,
    },
    Link {
        name: "100 Gbit/s network",
        rate: 12.5e9,
    },
];

impl Reduction {
    /// Bytes of gradients.
    pub fn bytes(&self) -> f64 {
        let each = match self.format {
            GradientFormat::F32 => 4.0,
            GradientFormat::Bf16 => 2.0,
        };
        self.values as f64 * each
    }

    /// Bytes that each process sends, and receives, in a ring of all: 2 (N − 1) / N times
    /// those of the gradients.
    pub fn sent_bytes(&self) -> f64 {
        let n = self.processes as f64;
        2.0 * (n - 1.0) / n * self.bytes()
    }
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let costs = LINKS.map(|link| {
            let seconds = Seconds(self.sent_bytes() / link.rate);
            format!("{seconds} at {} GB/s ({})", link.rate / 1e9, link.name)
        });
        write!(
            f,
            "{} of gradients a step, of which each process sends {}: {}",
            Bytes(self.bytes()),
            Bytes(self.sent_bytes()),
            costs.join(", ")
        )
    }
}

/// As `9.52 GB`, or `27.20 MB`.
struct Bytes(f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1e9 => write!(f, "{:.2} GB", n / 1e9),
            n => write!(f, "{:.2} MB", n / 1e6),
        }
    }
}

/// As `0.76 s`, or `27.19 ms`.
struct Seconds(f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s >= 0.1 => write!(f, "{s:.2} s"),
            s => write!(f, "{:.2} ms", s * 1e3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The large model of 1,359,314,048 values on eight GPUs: 4 bytes each, 2 · 7/8 of them
    /// sent.
    #[test]
    fn a_ring_of_eight() {
        let reduction = Reduction {
            values: 1_359_314_048,
            processes: 8,
            format: GradientFormat::F32,
        };
        assert_eq!(
            reduction.to_string(),
            "5.44 GB of gradients a step, of which each process sends 9.52 GB: 27.19 ms at 350 \
             GB/s (NVLink), 0.76 s at 12.5 GB/s (100 Gbit/s network)"
        );
        let half = Reduction {
            format: GradientFormat::Bf16,
            ..reduction
        };
        assert_eq!(2.0 * half.sent_bytes(), reduction.sent_bytes());
    }
}
