//! The whole end-to-end suite: one binary, so that it links once and shares what is costly to make.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod harness;

mod arm64;
mod boot;
mod bootcode;
mod build;
mod cache;
mod cli;
mod conformance;
mod containerd;
mod contract;
mod disks;
mod disks_guest;
mod efi;
mod examples;
mod formats;
mod formats_bad;
mod fuzz;
mod inspect;
mod iso;
mod lab;
mod linuxkit_run;
mod machines;
mod network;
mod network_guest;
mod network_links;
mod oci_archive;
mod pkg;
mod power_cuts;
mod push;
mod robust;
mod roots;
mod sbom;
mod services;
mod shares;
mod tidy;
mod upkeep;
mod vsock;
mod yaml;
