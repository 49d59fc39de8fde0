//! `bg-tap`: the network of VMs: bridge, TAPs, addresses.

use clap::{Args, Parser, Subcommand};
use lib_common::cli::{self, Answer, Context, Output};
use lib_common::doc::{Cidr, Name};
use lib_common::net::{pool, subnet};
use lib_common::ops::tap::{self, AcquireArgs, DownArgs, ReleaseArgs, UpArgs, parse_owner};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make a network for VMs, and lend them TAPs and addresses
#[derive(Parser)]
#[command(name = "bg-tap", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make the network of this namespace: bridge, gateway, rules
    Up {
        /// The guests' network
        #[arg(long, value_name = "CIDR", value_parser = subnet::parse)]
        subnet: Option<Cidr>,
        /// Let guests reach the internet, with the host's address
        #[arg(long, overrides_with = "no_nat")]
        nat: bool,
        /// Keep guests on their own network, which is the default
        #[arg(long)]
        no_nat: bool,
        /// Let guests reach this network of the host, too; may be given several times
        #[arg(long, value_name = "CIDR", value_parser = subnet::parse_network, requires = "nat")]
        allow: Vec<Cidr>,
    },
    /// Remove the network with its TAPs
    Down {
        /// Remove it even if VMs have TAPs
        #[arg(long)]
        force: bool,
    },
    /// Lend the VM on stdin an address and a TAP
    Acquire {
        /// Read the document from a file
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        #[command(flatten)]
        owner: Owner,
    },
    /// Take a VM's TAP back
    Release {
        /// The VM; without it, a document is read from stdin
        #[arg(value_parser = Name::of_vm)]
        name: Option<Name>,
        /// Read the document from a file
        #[arg(long, value_name = "PATH", conflicts_with = "name")]
        file: Option<PathBuf>,
        /// Take back this TAP, whoever has it
        #[arg(long, value_name = "TAP", conflicts_with_all = ["name", "file"])]
        tap: Option<String>,
        /// Take back this address of a VM that has no TAP
        #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["name", "file", "tap", "with_address"])]
        address: Option<Ipv4Addr>,
        /// Take its address back, too
        #[arg(long)]
        with_address: bool,
    },
    /// List the TAPs and addresses that VMs have
    Ls(Output),
    /// TAPs that are made ahead
    #[command(subcommand, arg_required_else_help = true)]
    Pool(PoolVerb),
}

#[derive(Subcommand)]
enum PoolVerb {
    /// Make TAPs until so many are idle, and keep it so
    Fill {
        /// How many
        #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(pool::MOST)))]
        count: u32,
        #[command(flatten)]
        owner: Owner,
    },
    /// Remove the idle TAPs, and keep none
    Drain,
    /// List the idle TAPs
    Ls(Output),
}

#[derive(Args)]
struct Owner {
    /// The user that may open the TAP; the caller by default
    #[arg(long, value_name = "USER", value_parser = parse_owner)]
    owner: Option<u32>,
}

fn main() -> ExitCode {
    cli::main("bg-tap", run)
}

fn run(args: Cli, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    match args.verb {
        Verb::Up { subnet, nat, no_nat, allow } => {
            let nat = if nat || no_nat { Some(nat) } else { None };
            tap::up(cx, &UpArgs { subnet, nat, allow })
        }
        Verb::Down { force } => tap::down(cx, DownArgs { force }),
        Verb::Acquire { file, owner } => tap::acquire(cx, &AcquireArgs { file, owner: owner.owner }),
        Verb::Release { name, file, tap, address, with_address } => {
            tap::release(cx, &ReleaseArgs { name, file, tap, address, with_address })
        }
        Verb::Ls(o) => tap::ls(cx, o.into()),
        Verb::Pool(PoolVerb::Fill { count, owner }) => tap::fill(cx, count, owner.owner),
        Verb::Pool(PoolVerb::Drain) => tap::drain(cx),
        Verb::Pool(PoolVerb::Ls(o)) => tap::pool_ls(cx, o.into()),
    }
}
