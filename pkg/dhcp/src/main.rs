//! `dhcp [-1] [INTERFACE]…`: gets the machine on the network. Also called `dhcpcd`, with that one's words.

use std::path::Path;
use std::process::ExitCode;

use kiln_dhcp::arguments::{Arguments, USAGE};
use kiln_dhcp::watch::{self, Places};

/// Leases, and the file `ready`.
const FOLDER: &str = "/run/dhcp";
/// Where the machine's `/etc/resolv.conf` leads to.
const RESOLV_FOLDER: &str = "/run/resolvconf";
/// In YAMLs for LinuxKit that folder is bound here.
const OTHER_RESOLV_FOLDER: &str = "/etc";

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            say(&format!("{wrong}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    let resolv = if Path::new(RESOLV_FOLDER).is_dir() { RESOLV_FOLDER } else { OTHER_RESOLV_FOLDER };
    let places = Places { folder: FOLDER.into(), resolv: Path::new(resolv).join("resolv.conf") };
    match watch::run(&arguments, &places, &mut say) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            say(&format!("{error}{cause}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program's own voice")]
fn say(text: &str) {
    eprintln!("{text}");
}
