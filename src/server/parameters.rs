//! A picture's settings in the one line that AUTOMATIC1111's web UI made usual, which many
//! programs read.

use crate::diffusion::truncation::Truncation;
use crate::pipeline::{Record, Subject};

/// The settings of `record` by the model of this name; `size` is width, height.
pub fn parameters(record: &Record, model: &str, size: [u32; 2]) -> String {
    let sampler = &record.settings.sampler;
    let mut text = match &record.request.subject {
        Subject::Text(prompt) => prompt.clone(),
        Subject::Class(class) => format!("class {class}"),
        Subject::Anything => String::new(),
    };
    if let Some(negative) = &record.negative_prompt {
        text += &format!("\nNegative prompt: {negative}");
    }
    let mut settings = vec![
        format!("Steps: {}", sampler.steps),
        "Sampler: VQ-Diffusion".into(),
        format!("CFG scale: {}", sampler.guidance),
        format!("Seed: {}", record.request.seed),
        format!("Size: {}x{}", size[0], size[1]),
        format!(
            "Model hash: {}",
            record.model_sha256.get(..10).unwrap_or("")
        ),
        format!("Model: {}", model.replace([',', '\n'], " ")),
    ];
    if let Some(edit) = &record.edit {
        settings.push(format!("Denoising strength: {}", edit.strength));
    }
    match sampler.truncation {
        Truncation::Off => {}
        Truncation::TopP(rate) => settings.push(format!("Truncation: {rate}")),
        Truncation::TopK(codes) => settings.push(format!("Top k: {codes}")),
    }
    settings.push(concat!("Version: vqdiffusion ", env!("CARGO_PKG_VERSION")).into());
    text + "\n" + &settings.join(", ")
}

/// What such a text of another program says that this one has too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foreign {
    pub prompt: String,
    pub negative_prompt: Option<String>,
    pub steps: Option<u64>,
    pub guidance: Option<f64>,
    pub seed: Option<u64>,
}

/// Reads the settings in `text`.
pub fn read_parameters(text: &str) -> Foreign {
    let mut found = Foreign::default();
    let mut lines: Vec<&str> = text.lines().collect();
    if lines.last().is_some_and(|line| line.contains("Steps: ")) {
        for setting in lines.pop().unwrap_or_default().split(", ") {
            match setting.split_once(": ") {
                Some(("Steps", value)) => found.steps = value.trim().parse().ok(),
                Some(("CFG scale", value)) => found.guidance = value.trim().parse().ok(),
                Some(("Seed", value)) => found.seed = value.trim().parse().ok(),
                _ => {}
            }
        }
    }
    let text = lines.join("\n");
    match text.split_once("Negative prompt: ") {
        Some((prompt, negative)) => {
            found.prompt = prompt.trim_end().into();
            found.negative_prompt = Some(negative.trim().into());
        }
        None => found.prompt = text.trim_end().into(),
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_programs_settings_are_read() {
        let text =
            "a red heart,\nshiny\nNegative prompt: blue, dull\nSteps: 20, Sampler: Euler a, \
                    CFG scale: 7.5, Seed: 42, Size: 512x512";
        let expected = Foreign {
            prompt: "a red heart,\nshiny".into(),
            negative_prompt: Some("blue, dull".into()),
            steps: Some(20),
            guidance: Some(7.5),
            seed: Some(42),
        };
        assert_eq!(read_parameters(text), expected);
        let bare = read_parameters("only words");
        assert_eq!((bare.prompt.as_str(), bare.steps), ("only words", None));
    }
}
