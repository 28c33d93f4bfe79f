//! A model over steps, guidance, truncation and rules: the same prompts and seeds in every
//! cell, quality against cost.
//!
//! [`cells`] names the cells, [`run`] makes and measures them, [`table`], [`plot`] and
//! [`page`] show what is found.

pub mod cells;
pub mod page;
pub mod plot;
pub mod run;
pub mod table;
