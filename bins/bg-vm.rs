//! `bg-vm`: VMs, from a plan to their removal.

use clap::{Args, Parser, Subcommand};
use lib_common::cli::{self, Answer, BootTimeout, Context, Output};
use lib_common::config::{parse_memory_mib, parse_seconds, parse_size, parse_vcpu};
use lib_common::doc::{KernelArgs, Name, VmmChoice};
use lib_common::ops::machine::{self, CreateArgs, LogsArgs, PlanArgs, RemoveArgs, StopArgs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Make, start, stop, list and remove VMs
#[derive(Parser)]
#[command(name = "bg-vm", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print the document of a VM that does not exist yet
    Plan(Plan),
    /// Make a VM and start it
    Create {
        #[command(flatten)]
        plan: Plan,
        /// Make it and do not start it
        #[arg(long)]
        no_start: bool,
        #[command(flatten)]
        boot: BootTimeout,
    },
    /// Start a VM, or finish the creation of the one on stdin
    Start {
        #[command(flatten)]
        targets: Targets,
        #[command(flatten)]
        boot: BootTimeout,
    },
    /// Shut a VM down
    Stop(Wait),
    /// Stop a VM, then start it
    Restart(Wait),
    /// End a VM at once, as if the power failed
    Kill(Targets),
    /// Remove a VM with its disks
    Rm {
        #[command(flatten)]
        targets: Targets,
        /// Remove it even if it runs
        #[arg(long)]
        force: bool,
    },
    /// List VMs
    Ls(Output),
    /// Print the document of a VM, with its state
    Show {
        /// The VM
        #[arg(value_parser = Name::of_vm)]
        name: Name,
    },
    /// Print a VM's console
    Logs {
        /// The VM
        #[arg(value_parser = Name::of_vm)]
        name: Name,
        /// Go on until the VM ends
        #[arg(long, short)]
        follow: bool,
    },
    /// Print the VMs' names and addresses, for /etc/hosts
    Hosts {
        /// Tell the VMs that run, too
        #[arg(long)]
        update: bool,
    },
    /// List what listens in VMs, with the address to use
    Ports {
        #[command(flatten)]
        targets: Targets,
        #[command(flatten)]
        output: Output,
    },
    /// Print what a VM uses: processor, memory, storage
    Stats(Targets),
}

#[derive(Args)]
struct Plan {
    /// The VM's name
    name: Name,
    /// The image
    #[arg(long, value_name = "NAME")]
    image: Option<Name>,
    /// Virtual processors
    #[arg(long, value_name = "N", value_parser = parse_vcpu)]
    vcpu: Option<u32>,
    /// Memory
    #[arg(long, value_name = "SIZE", value_parser = parse_memory_mib)]
    memory: Option<u64>,
    /// Allow more memory than the host has
    #[arg(long)]
    overcommit: bool,
    /// The root disk's size, if it is to be larger than the image's
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    root_size: Option<u64>,
    /// The work disk's size
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    work_size: Option<u64>,
    /// With a network card, which is the default where the caller may have one
    #[arg(long, overrides_with = "no_net")]
    net: bool,
    /// Without a network card
    #[arg(long)]
    no_net: bool,
    /// Let it reach the internet, with the host's address
    #[arg(long, conflicts_with = "no_net")]
    nat: bool,
    /// The VMM: auto, firecracker or qemu
    #[arg(long, value_name = "VMM")]
    vmm: Option<VmmChoice>,
    /// Append this to the command line of the guest's kernel
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    kernel_args: Option<KernelArgs>,
}

#[derive(Args)]
struct Targets {
    /// The VMs; without one, a document is read from stdin
    #[arg(value_parser = Name::of_vm)]
    names: Vec<Name>,
    /// Read the document from a file
    #[arg(long, value_name = "PATH", conflicts_with = "names")]
    file: Option<PathBuf>,
}

#[derive(Args)]
struct Wait {
    #[command(flatten)]
    targets: Targets,
    /// How long the guest may take to shut down before it is killed; 90 seconds are usual
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    boot: BootTimeout,
}

fn main() -> ExitCode {
    cli::main("bg-vm", run)
}

fn run(args: Cli, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    match args.verb {
        Verb::Plan(plan) => machine::plan(cx, &plan.into()),
        Verb::Create { plan, no_start, boot } => {
            boot.apply(&mut cx.config);
            machine::create(cx, &CreateArgs { plan: plan.into(), no_start })
        }
        Verb::Start { targets: t, boot } => {
            boot.apply(&mut cx.config);
            machine::start(cx, &t.names, t.file)
        }
        Verb::Stop(Wait { targets: t, timeout, boot }) => {
            boot.apply(&mut cx.config);
            machine::stop(cx, &t.names, &StopArgs { file: t.file, timeout: cx.config.deadline(timeout, 90) })
        }
        Verb::Restart(Wait { targets: t, timeout, boot }) => {
            boot.apply(&mut cx.config);
            machine::restart(cx, &t.names, &StopArgs { file: t.file, timeout: cx.config.deadline(timeout, 90) })
        }
        Verb::Kill(t) => machine::kill(cx, &t.names, t.file),
        Verb::Rm { targets: t, force } => machine::rm(cx, &t.names, &RemoveArgs { file: t.file, force }),
        Verb::Ls(o) => machine::ls(cx, o.into()),
        Verb::Show { name } => machine::show(cx, &name),
        Verb::Logs { name, follow } => machine::logs(cx, &LogsArgs { name, follow }),
        Verb::Hosts { update } => machine::hosts(cx, update),
        Verb::Ports { targets: t, output } => machine::ports(cx, &t.names, t.file, output.into()),
        Verb::Stats(t) => machine::stats(cx, &t.names, t.file),
    }
}

impl From<Plan> for PlanArgs {
    fn from(p: Plan) -> Self {
        PlanArgs {
            name: Some(p.name),
            image: p.image,
            vcpu: p.vcpu,
            memory_mib: p.memory,
            overcommit: p.overcommit,
            root_bytes: p.root_size,
            work_bytes: p.work_size,
            net: (p.net || p.no_net || p.nat).then_some(!p.no_net),
            nat: p.nat,
            vmm: p.vmm,
            kernel_args: p.kernel_args,
        }
    }
}
