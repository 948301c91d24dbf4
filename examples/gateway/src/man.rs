//! The manual page: one for the program and all of its commands, made of what its `--help` says.

use crate::cli::{Cli, MORE};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use std::io::{Result, Write};

/// The page, as roff.
///
/// # Errors
/// Never: it is written to memory.
pub fn page() -> Result<Vec<u8>> {
    let (mut page, mut program) = (Vec::new(), Cli::command());
    program.build();
    let man = Man::new(program.clone()).manual("boxpool");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for command in program.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        command_section(command, &mut page)?;
    }
    more(&mut page)?;
    Ok(page)
}

/// A command's part: what would be sections in a page of its own follows its name here.
fn command_section(command: &Command, page: &mut Vec<u8>) -> Result<()> {
    let (man, mut text) = (Man::new(command.clone()), Vec::new());
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    writeln!(page, ".SS {}", command.get_name())?;
    for line in text.lines() {
        match line {
            ".SH SYNOPSIS" | ".SH OPTIONS" => {}
            ".SH DESCRIPTION" => writeln!(page, ".PP")?,
            line => writeln!(page, "{line}")?,
        }
    }
    Ok(())
}

/// What `--help` says at the end: each paragraph has a heading, and those with columns keep their lines.
fn more(page: &mut Vec<u8>) -> Result<()> {
    let mut roff = Roff::default();
    for paragraph in MORE.split("\n\n") {
        let mut lines = paragraph.lines();
        let heading = lines.next().unwrap_or_default().trim_end_matches(':').to_uppercase();
        roff.control("SH", [heading.as_str()]);
        let columns = paragraph.contains("   ");
        if columns {
            roff.control("nf", []);
        }
        for line in lines {
            roff.text([roman(line.trim_start())]);
        }
        if columns {
            roff.control("fi", []);
        }
    }
    roff.to_writer(page)
}
