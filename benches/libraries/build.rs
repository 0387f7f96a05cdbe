//! Builds the newest OpenSSL and links it in.

fn main() {
    openssl_src::Build::new().build().print_cargo_metadata();
}
