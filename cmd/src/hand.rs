//! `kiln pause`, `kiln resume` and `kiln memory`: a hand on a running machine.

use kiln_run::control::{Client, Request};
use kiln_run::hands::MemoryUse;

use crate::args;
use crate::failure::Failure;
use crate::machines::connect;
use crate::printer::Printer;

/// Stops the guest's processors.
pub fn pause(asked: &args::Running) -> Result<(), Failure> {
    connect(&asked.name)?.ask(&Request::Pause {})?;
    Ok(())
}

/// Lets them go on.
pub fn resume(asked: &args::Running) -> Result<(), Failure> {
    connect(&asked.name)?.ask(&Request::Resume {})?;
    Ok(())
}

/// Shows what the machine's memory takes, after a wish about its balloon.
pub fn memory(asked: &args::MemoryOf, printer: &Printer) -> Result<(), Failure> {
    let mut machine: Client = connect(&asked.running.name)?;
    if let Some(target_bytes) = asked.balloon {
        machine.ask(&Request::Balloon { target_bytes })?;
    }
    let memory = machine.memory()?;
    if asked.json {
        let mut text = serde_json::to_vec_pretty(&memory)?;
        text.push(b'\n');
        return Ok(printer.data(&text)?);
    }
    Ok(printer.data(lines(&memory).as_bytes())?)
}

fn lines(memory: &MemoryUse) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let MemoryUse { total_bytes, resident_bytes, balloon } = memory;
    let mut text = format!("held {} MiB of {}\n", mib(*resident_bytes), mib(*total_bytes));
    if let Some(balloon) = balloon {
        text += &format!("balloon {} MiB of {}\n", mib(balloon.actual_bytes), mib(balloon.target_bytes));
        for (name, bytes) in [("free in the guest", balloon.free_bytes), ("available", balloon.available_bytes)] {
            if let Some(bytes) = bytes {
                text += &format!("{name} {} MiB\n", mib(bytes));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use kiln_run::hands::BalloonUse;

    use super::*;

    #[test]
    fn what_the_guest_does_not_say_is_not_shown() {
        let mut memory = MemoryUse { total_bytes: 1 << 30, resident_bytes: (80 << 20) + 1, balloon: None };
        assert_eq!(lines(&memory), "held 81 MiB of 1024\n");
        let balloon = BalloonUse {
            target_bytes: 2 << 20,
            actual_bytes: 1 << 20,
            free_bytes: None,
            available_bytes: Some(5 << 20),
        };
        memory.balloon = Some(balloon);
        assert_eq!(lines(&memory), "held 81 MiB of 1024\nballoon 1 MiB of 2\navailable 5 MiB\n");
    }
}
