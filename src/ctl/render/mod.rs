//! Views to text. No I/O, no clock, no colour but what a caller asks for.

pub mod python;
