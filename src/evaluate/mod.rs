//! Measures of pictures against real ones: whether the nearest real picture is the wanted
//! one, whether object and colour are, and what the image codec loses.

pub mod codec;
pub mod colours;
pub mod labelled;
pub mod pyramid;
pub mod rate;
pub mod retrieval;
