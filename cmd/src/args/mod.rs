//! The command line as its user typed it: types and texts of the help, no I/O.

mod argv;
mod cache;
mod console;
mod disk;
mod erofs;
mod firmware;
mod format;
mod hand;
mod inspect;
mod linuxkit;
mod machines;
mod memory;
mod metadata;
mod net;
mod networking;
mod pkg;
mod port;
mod power;
mod publish;
mod push;
mod root;
mod sbom;
mod secure_boot;
mod share;
mod size;
mod squashfs;
mod timings;
mod vsock;
mod yaml;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use kiln_build::format::root::RootOn;
use kiln_run::check::MAX_CPUS;

pub use cache::{
    Cache, CacheClean, CacheExport, CacheImport, CacheLs, CachePull, CachePush, CacheRm, CacheVerify, ExportFormat,
};
pub use console::ConsoleFlags;
pub use disk::{DiskSpec, Disks};
pub use erofs::Erofs;
pub use firmware::FirmwareFlags;
pub use hand::{MemoryOf, Running};
pub use inspect::Inspect;
pub use linuxkit::{Linuxkit, LinuxkitRun};
pub use machines::{Console, Cp, Exec, Kill, Logs, Ps, Rm, Stop};
pub use memory::Memory;
pub use metadata::{Data, Metadata};
pub use net::Net;
pub use networking::{Attachment, DnsSpec, Kind, Networking};
pub use pkg::{Pkg, PkgBuild, PkgCommand, PkgManifest, PkgNaming, PkgRemoteTag, PkgShowTag};
pub use port::Port;
pub use power::Power;
pub use push::Push;
pub use root::RootFlags;
pub use sbom::Sbom;
pub use secure_boot::SecureBoot;
pub use share::ShareSpec;
pub use squashfs::Squashfs;
pub use timings::Timings;
pub use vsock::Vsock;
pub use yaml::Yaml;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    version,
    about = "From a few lines of YAML to a booted machine",
    after_help = "Every long flag may be written with one dash: -cpus 2 is --cpus 2.",
    max_term_width = 110,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Flags that every command understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command understands.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Folder of the image store, an OCI image layout [env: KILN_CACHE, LINUXKIT_CACHE] [default: ~/.kiln/cache]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub cache: Option<PathBuf>,
    /// Ask URL instead of every registry, or with REGISTRY= instead of that one; repeatable [env: LINUXKIT_MIRROR]
    #[arg(long, global = true, value_name = "[REGISTRY=]URL", help_heading = "Global options")]
    pub mirror: Vec<String>,
    /// Ask no registry: use what is in the store, or fail
    #[arg(long, global = true, help_heading = "Global options")]
    pub offline: bool,
    /// Trust this certificate too when a registry is asked; repeatable
    #[arg(long, global = true, value_name = "PEM", help_heading = "Global options")]
    pub cert_file: Vec<PathBuf>,
    /// Say nothing but errors
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// How much to say: 0 errors only, 1 as usual, 2 and 3 details too
    #[arg(
        long,
        short,
        global = true,
        value_name = "LEVEL",
        default_value_t = 1,
        hide_default_value = true,
        value_parser = clap::value_parser!(u8).range(0..=3),
        help_heading = "Global options"
    )]
    pub verbose: u8,
    /// Set for the process that `kiln run -d` leaves behind.
    #[arg(long, global = true, hide = true)]
    pub detached_child: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build something bootable from YAML files
    Build(Build),
    /// Boot what was built, its console on this terminal
    Run(Box<Run>),
    /// List machines that run
    Ps(Ps),
    /// Show a running machine's console, and type
    Console(Console),
    /// Print what a detached machine printed
    Logs(Logs),
    /// Run a program in a running machine
    Exec(Exec),
    /// Copy files and folders into a running machine, and out of it
    Cp(Cp),
    /// Ask machines to power off, and end those that do not
    Stop(Stop),
    /// End machines at once, as if their plugs were pulled
    Kill(Kill),
    /// Remove ended machines' state folders, with the disks in them
    Rm(Rm),
    /// Publish ports of a running machine, and take them back
    #[command(subcommand, arg_required_else_help = true)]
    Port(Port),
    /// Stop a running machine's processors for a while; its clock goes on
    Pause(Running),
    /// Let a paused machine go on
    Resume(Running),
    /// Show what a running machine's memory takes
    Memory(MemoryOf),
    /// Make a CD that tells a machine of itself
    #[command(subcommand, arg_required_else_help = true)]
    Metadata(Metadata),
    /// Look after the image store
    #[command(subcommand, arg_required_else_help = true)]
    Cache(Cache),
    /// Send what was built to a registry
    Push(Push),
    /// Show what fills an image: by image, package and folder
    Inspect(Inspect),
    /// Build guest packages
    #[command(arg_required_else_help = true)]
    Pkg(Pkg),
    /// Offer the user-mode network to guests of other programs
    Net(Net),
    /// Print the JSON Schema of the YAML, for editors
    Schema,
    /// Show what this host can do, and why not
    Doctor(Doctor),
    /// Print the version
    Version {
        /// Only the number
        #[arg(long)]
        short: bool,
    },
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print this reference as Markdown
    #[command(hide = true)]
    HelpMarkdown,
    /// Run a program that dies when this process's parent does
    #[command(hide = true, name = kiln_run::qemu::TIED_COMMAND)]
    Tied {
        /// Process id of the one to die with
        parent: i32,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
}

/// `kiln build`.
#[derive(Debug, Clone, Args)]
pub struct Build {
    /// YAML files or http(s) URLs, merged in this order; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Name that the output files start with [default: the last FILE's, less its extension]
    #[arg(long)]
    pub name: Option<String>,
    /// Folder to write to [default: the current one]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Write the one output to this file; `-` is standard output. The format is then `tar` unless one is given
    #[arg(long = "o", short = 'o', value_name = "FILE", conflicts_with_all = ["name", "dir"])]
    pub output: Option<PathBuf>,
    #[arg(long, short, value_name = "FORMAT", value_delimiter = ',', help = format::help())]
    pub format: Vec<String>,
    /// Architecture to build for: amd64, arm64 or riscv64 [default: this machine's]
    #[arg(long)]
    pub arch: Option<String>,
    /// Keep the root of disk images with a GPT on a partition of its own, `squashfs` or `erofs`, and not in RAM
    #[arg(long, value_name = "FILESYSTEM")]
    pub root: Option<RootOn>,
    /// Let the kernel check a root on a disk or CD block by block (dm-verity); the root hash is in the command line
    #[arg(long)]
    pub verity: bool,
    /// Ask the registry even for images that are in the store
    #[arg(long)]
    pub pull: bool,
    /// About the YAML.
    #[command(flatten)]
    pub yaml: Yaml,
    /// To be like LinuxKit.
    #[command(flatten)]
    pub linuxkit: Linuxkit,
    /// About the packages in it.
    #[command(flatten)]
    pub sbom: Sbom,
    /// About EROFS images.
    #[command(flatten)]
    pub erofs: Erofs,
    /// About squashfs images.
    #[command(flatten)]
    pub squashfs: Squashfs,
    /// About Secure Boot.
    #[command(flatten)]
    pub secure_boot: SecureBoot,
    /// Where the time goes
    #[arg(long, value_enum, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "table")]
    pub timings: Option<Timings>,
}

/// `kiln run`.
#[derive(Debug, Clone, Args)]
#[command(
    override_usage = "kiln run [OPTIONS] [BACKEND] NAME",
    after_help = "On a terminal, Ctrl-A x ends the machine at once, and Ctrl-A Ctrl-A sends the guest one Ctrl-A; every \
                  other key is the guest's. Elsewhere SIGTERM, SIGINT and SIGHUP press its power button.\n\n\
                  Exit status: 0 the guest powered off (or reset, with -no-reboot), 1 it panicked, triple-faulted or \
                  was stopped."
)]
pub struct Run {
    /// What was built: NAME stands for the files NAME-kernel, NAME-cmdline and NAME-initrd.img, or for a root on a disk
    /// NAME-squashfs.img, NAME-erofs.img or NAME.iso; an ISO or a disk image that EFI firmware can boot; oci://NAME for what `kiln push` sent to a registry, oci-archive:FILE for
    /// what `kiln build -format oci` wrote. BACKEND, `qemu` or `kvm`, is short for -accel; LinuxKit's `virtualization` and `hyperkit` choose
    /// none
    #[arg(value_name = "NAME", num_args = 1..=2, required_unless_present_any = ["kernel", "uefi", "firmware"])]
    pub words: Vec<OsString>,
    /// Number of processors
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CPUS)))]
    pub cpus: u32,
    /// About memory.
    #[command(flatten)]
    pub memory: Memory,
    /// Its disks.
    #[command(flatten)]
    pub disks: Disks,
    /// What it is told.
    #[command(flatten)]
    pub data: Data,
    /// A folder of this host's that the guest mounts by its tag: virtiofs0, virtiofs1, … WORDs: tag=TAG; ro; watch: programs that
    /// watch it in the guest hear of changes by the host (needs the agent in the guest); cache=SECONDS: faster, and changes by the host are
    /// seen that much later; uid=GUEST:HOST[:COUNT] and gid=…, users and groups
    /// that have another number in the guest. Repeatable
    #[arg(long, value_name = "DIR[,WORD...]")]
    pub virtiofs: Vec<ShareSpec>,
    /// About the network.
    #[command(flatten)]
    pub networking: Networking,
    /// About sockets between host and guest.
    #[command(flatten)]
    pub vsock: Vsock,
    /// About the console.
    #[command(flatten)]
    pub console: ConsoleFlags,
    /// LinuxKit's.
    #[command(flatten)]
    pub linuxkit: LinuxkitRun,
    /// Ask the registry for oci://NAME even when it is in the store
    #[arg(long)]
    pub pull: bool,
    /// Kernel to boot, a bzImage or an uncompressed vmlinux [default: NAME-kernel]
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = NO_FILE)]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk [default: NAME-initrd.img, when NAME is given]
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line [default: what NAME-cmdline holds]
    #[arg(long, visible_alias = "append", value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// Where the root is.
    #[command(flatten)]
    pub root: RootFlags,
    /// About EFI firmware.
    #[command(flatten)]
    pub firmware: FirmwareFlags,
    /// Folder for what the machine keeps: disks without a file, a lock [default: NAME-state]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// What runs the guest's instructions: kvm, qemu (its software CPU), or kvm with qemu as the way out
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub accel: Accel,
    /// About its end.
    #[command(flatten)]
    pub power: Power,
}

/// What `-kernel` is without a FILE: LinuxKit's flag, by which NAME-kernel and NAME-initrd.img are to be booted.
pub const NO_FILE: &str = "-";

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// KVM where it works, else QEMU
    #[value(alias = "kvm:tcg")]
    Auto,
    /// KVM or nothing
    Kvm,
    /// QEMU's software CPU
    #[value(alias = "tcg")]
    Qemu,
}

/// `kiln doctor`.
#[derive(Debug, Clone, Args)]
pub struct Doctor {
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Reads a command line whose first word is the program's name. The error holds the text to print and the status: help
/// and version are errors of status 0 to the parser.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(argv::with_two_dashes(&command(), words))?;
    Cli::from_arg_matches(&matches)
}

/// The parser's description of everything above.
pub fn command() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Cli, clap::Error> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_description_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_refused_with_status_2() {
        let lines = [
            "kiln",
            "kiln frobnicate",
            "kiln build",
            "kiln build --frobnicate x.yml",
            "kiln build -o x -name y x.yml",
            "kiln -v 9 version",
            "kiln run",
            "kiln run a b c",
            "kiln run -cpus x a",
            "kiln run -cpus 0 a",
            "kiln run -cpus 255 a",
            "kiln run -mem 1.5G a",
            "kiln run -mem 0 a",
            "kiln run -mem 15M a",
            "kiln run -mem 1T a",
            "kiln run -on-hang dance a",
            "kiln run -accel hvf a",
            "kiln run -disk format=vmdk,size=1G a",
            "kiln run -stop-timeout soon a",
            "kiln pkg",
            "kiln pkg build",
        ];
        for line in lines {
            assert_eq!(parse_line(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn help_of_a_command_is_a_command_too() {
        for line in ["kiln help", "kiln help build", "kiln build -help"] {
            let shown = parse_line(line).expect_err(line);
            assert_eq!(shown.exit_code(), 0, "{line}");
            assert_eq!(shown.to_string().contains("-format"), line.contains("build"), "{line}");
        }
    }

    #[test]
    fn a_run_is_read_as_typed() {
        let cli = parse_line("kiln run -cpus 2 -mem 1G -append -x=1 -disk size=1G -accel=qemu -no-reboot minimal");
        let Command::Run(run) = cli.unwrap().command else { panic!("no run") };
        assert_eq!((run.cpus, run.memory.mem, run.power.no_reboot, run.accel), (2, 1024, true, Accel::Qemu));
        assert_eq!(run.cmdline.as_deref(), Some("-x=1"));
        assert_eq!(run.disks.disk, [DiskSpec { size_bytes: Some(1 << 30), ..DiskSpec::default() }]);
        assert_eq!(run.words, ["minimal"]);
    }
}
