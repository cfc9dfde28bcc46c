//! Measures user-mode networks without a machine: a kernel's own TCP stands for the guest, in a network namespace behind
//! a tap, whose frames go over a socket to the stack under test in a second namespace. Nothing leaves the two. Plain std.
//!
//!     net lab ROUNDS SERVE NAME…      every stack named, ROUNDS times in turn; rows to standard output
//!     net table FILE                  medians of such rows
//!     net machines FILE               medians of the rows of bench/net-vm.sh
//!     net vsock FILE                  medians of the rows of bench/vsock.sh
//!     net bridge TAP SOCKET [virtio]  serve ADDRESS | load TEST ADDRESS WORDS…   what the lab starts
//!     net vsock-serve | vsock-load TEST PLACE STREAMS MS   what bench/vsock.sh starts

mod bridge;
mod exchange;
mod lab;
mod load;
mod serve;
mod stacks;
mod table;
mod vsock;

/// TCP ports of the far end: several, so that a client never runs out of its own. UDP has the first.
const PORTS: std::ops::Range<u16> = 7000..7016;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["lab", rounds, serve, ref names @ ..] => lab::run(rounds.parse().expect("a number of rounds"), serve, names),
        ["table", file] => table::print(file),
        ["machines", file] => table::print_machines(file),
        ["vsock", file] => table::print_vsock(file),
        ["vsock-serve"] => vsock::serve(),
        ["vsock-load", test, place, streams, ms] => {
            vsock::load(test, place, streams.parse().expect("a number"), ms.parse().expect("milliseconds"));
        }
        ["bridge", tap, socket, ref rest @ ..] => bridge::run(tap, socket, rest == ["virtio"]),
        ["serve", address] => serve::run(address.parse().expect("an address")),
        ["load", test, address, ref rest @ ..] => {
            load::run(
                test,
                address.parse().expect("an address"),
                &rest.iter().map(|n| n.parse().expect("a number")).collect::<Vec<_>>(),
            );
        }
        _ => panic!("usage: net lab ROUNDS SERVE NAME… | net table FILE"),
    }
}
