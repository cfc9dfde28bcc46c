//! The whole end-to-end suite: one binary, so that it links once and shares what is costly to make.

mod harness;

mod boot;
mod build;
mod cli;
mod lab;
mod tidy;
