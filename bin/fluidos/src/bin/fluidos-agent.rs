//! `fluidos-agent`: a machine that is one more of a node, and nothing else.

fn main() -> std::process::ExitCode {
    fluidos::agent()
}
