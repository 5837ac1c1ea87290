//! `fluidos`: all of it.

fn main() -> std::process::ExitCode {
    fluidos::main()
}
