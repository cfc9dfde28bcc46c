//! Where the time of a build went, for people and for programs.

use indicatif::HumanBytes;
use kiln_build::pipeline::Phase;
use serde_json::json;

use crate::args::Timings;

/// All phases and their sum, without a line break at the end.
pub fn shown(phases: &[Phase], form: Timings) -> String {
    let total = Phase {
        name: "total".into(),
        wall: phases.iter().map(|phase| phase.wall).sum(),
        cpu: phases.iter().map(|phase| phase.cpu).sum(),
        bytes: 0,
    };
    match form {
        Timings::Table => table(phases, &total),
        Timings::Json => json!({
            "phases": phases.iter().map(object).collect::<Vec<_>>(),
            "total": object(&total),
        })
        .to_string(),
    }
}

fn table(phases: &[Phase], total: &Phase) -> String {
    let width = phases.iter().map(|phase| phase.name.chars().count()).max().unwrap_or(0).max("total".len());
    let mut lines = vec![format!("{:width$} {:>9} {:>9} {:>6} {:>12}", "", "wall s", "cpu s", "cores", "bytes")];
    for phase in phases.iter().chain([total]) {
        let Phase { name, wall, cpu, bytes } = phase;
        let (wall, cpu) = (wall.as_secs_f64(), cpu.as_secs_f64());
        // Below a millisecond the clocks say nothing about how many cores were busy.
        let cores = if wall < 1e-3 { String::new() } else { format!("{:.1}", cpu / wall) };
        let bytes = if *bytes == 0 { String::new() } else { HumanBytes(*bytes).to_string() };
        let line = format!("{name:width$} {wall:9.3} {cpu:9.3} {cores:>6} {bytes:>12}");
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

fn object(phase: &Phase) -> serde_json::Value {
    let Phase { name, wall, cpu, bytes } = phase;
    json!({"name": name, "wall_s": wall.as_secs_f64(), "cpu_s": cpu.as_secs_f64(), "bytes": bytes})
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn phases() -> [Phase; 2] {
        let (wall, cpu) = (Duration::from_millis(1500), Duration::from_millis(3000));
        let unpack = Phase { name: "unpack".into(), wall, cpu, bytes: 3 << 20 };
        [Phase { name: "config".into(), wall: Duration::ZERO, cpu: Duration::ZERO, bytes: 0 }, unpack]
    }

    #[test]
    fn a_table_has_a_line_for_each_phase_and_their_sum() {
        let expected = "          wall s     cpu s  cores        bytes\n\
                        config     0.000     0.000\n\
                        unpack     1.500     3.000    2.0     3.00 MiB\n\
                        total      1.500     3.000    2.0";
        assert_eq!(shown(&phases(), Timings::Table), expected);
    }

    #[test]
    fn the_json_form_is_one_line_with_seconds_and_bytes() {
        let text = shown(&phases(), Timings::Json);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["phases"][1]["bytes"], &value["total"]["wall_s"]), (&json!(3 << 20), &json!(1.5)));
        assert!(!text.contains('\n'));
    }
}
