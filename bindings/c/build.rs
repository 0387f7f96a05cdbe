//! Gives the shared library its name for the dynamic linker. A new number is an incompatible
//! interface.

fn main() {
    #[allow(clippy::print_stdout)] // this is how a build script talks to cargo
    {
        println!("cargo:rerun-if-changed=build.rs");
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libluksmith.so.0");
    }
}
