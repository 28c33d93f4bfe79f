//! What is CLIP's: the text tower in its own files, and the merge rules of a vocabulary.

pub mod tower;
pub mod vocabulary;
