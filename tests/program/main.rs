//! The program in temporary folders, and what a user of the library does.

mod cli;
mod codec_together;
mod codec_training;
mod configs;
mod divided;
mod documentation;
#[path = "../modules/drawn.rs"]
mod drawn;
mod editing;
mod emoji;
mod evaluate;
mod evaluate_codec;
mod evaluate_compare;
mod evaluate_model;
mod evaluate_pictures;
mod formats;
mod hostile;
mod hub;
mod library;
mod model_files;
mod official_options;
mod released;
mod repeating;
mod running;
mod sampling;
mod selection;
#[cfg(feature = "serve")]
mod serve;
mod surroundings;
mod token_cache;
mod torch_file;
mod traces;
mod train;
mod variants;
mod vocabulary;
mod weights;
