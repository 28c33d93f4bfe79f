//! Is the picture the one asked for? Pictures that say what they show, a gallery of real
//! ones, and a distance without a network: does the nearest real picture show the same
//! thing in the same style ([`retrieval`]), are object and colour there ([`colours`]), and how
//! much do pictures of one prompt differ ([`seeds`])?

pub mod asked;
pub mod colours;
pub mod gallery;
pub mod labelled;
pub mod pyramid;
pub mod retrieval;
pub mod scores;
pub mod seeds;
