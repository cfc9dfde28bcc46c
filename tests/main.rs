//! The whole end-to-end suite: one binary, so that it links once and shares what is costly to make.

mod harness;

mod lab;
mod tidy;
