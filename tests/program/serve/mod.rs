//! `vqdiffusion serve`: what its clients send and get.

mod access;
mod client;
mod editing;
mod life;
mod load;
mod own;
mod runs;
mod sameness;
mod shapes;
