//! Is the picture the one asked for? Pictures that say what they show, a gallery of real
//! ones, and a distance without a network: does the nearest real picture show the same
//! thing in the same style ([`retrieval`]), are object and colour there ([`colours`])?

pub mod asked;
pub mod colours;
pub mod gallery;
pub mod labelled;
pub mod pyramid;
pub mod retrieval;
pub mod scores;
