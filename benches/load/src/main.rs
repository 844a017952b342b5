//! A WebSocket echo server and a load generator with one thread, one epoll loop and hand-made frames. They are cheap
//! beside any proxy between them, and compare every byte that returns.

mod echo;
mod frame;
mod generator;
mod handshake;
mod latency;
mod session;

use std::net::SocketAddr;
use std::process::ExitCode;

use generator::Generator;

const USAGE: &str = "\
usage: closewatch-load echo HOST:PORT | unix:PATH
       closewatch-load load HOST:PORT [--routes N] [--codes 1000,1001]

`echo` serves until it is killed; it prints `listening on ADDRESS`.
`load` obeys commands on standard input and answers each with one line of JSON:
  open COUNT SIZE IN_FLIGHT   opens sessions that exchange messages of SIZE bytes (8 at least), and one message on each
  run MILLISECONDS            keeps IN_FLIGHT messages on the way in every session, then waits for the last reply
  churn WIDTH MILLISECONDS    whole sessions of one message (the shape last opened), WIDTH at a time
  close                       the closing handshake on every session
Session i asks for the path /r<i mod N>/ and closes with the codes in turn.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["echo", address] => echo::serve(address).map_err(|error| error.to_string()),
        ["load", address, options @ ..] => load(address, options),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn load(address: &str, options: &[&str]) -> Result<(), String> {
    let address: SocketAddr = address.parse().map_err(|_| format!("{address} is no HOST:PORT"))?;
    let mut routes = 1;
    let mut codes = vec![1000];
    for option in options.chunks(2) {
        match option {
            ["--routes", count] => routes = number(count)?,
            ["--codes", list] => codes = list.split(',').map(number).collect::<Result<_, _>>()?,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let mut generator = Generator::new(address, routes, codes).map_err(|error| error.to_string())?;
    for line in std::io::stdin().lines() {
        let line = line.map_err(|error| error.to_string())?;
        println!("{}", obey(&mut generator, &line)?);
    }
    Ok(())
}

/// Runs the command of one line and prints the result as JSON.
fn obey(generator: &mut Generator, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["open", count, size, in_flight] => generator.open(number(count)?, number(size)?, number(in_flight)?),
        ["run", milliseconds] => generator.run(number(milliseconds)?),
        ["churn", width, milliseconds] => generator.churn(number(width)?, number(milliseconds)?),
        ["close"] => generator.close(),
        _ => Err(format!("{line:?} is no command\n{USAGE}")),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number that fits here"))
}
