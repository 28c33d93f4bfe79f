//! The library room by room: numbers against closed forms, enumeration and recordings.

mod architecture;
mod attention;
mod bound;
mod checkpoint_hostile;
mod checkpoint_values;
mod codebook;
mod data;
mod diffusion;
mod drawn;
mod dropout;
mod files;
mod moments;
mod muon;
mod numbers;
mod places;
mod preprocessing;
mod random;
mod recipe;
mod text_features;
mod tokenizer;
