//! How the tools are linked: the thousands of pointers that the dynamic linker has to add an address to, at each start, are packed
//! (DT_RELR, which glibc has since 2.36). That is 24 bytes less for each.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
