//! Why a partition is not found.

use std::fmt;
use std::ops::Range;

use crate::backend::IoError;

/// The kind of a table of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Table {
    /// A GPT.
    Gpt,
    /// An MBR.
    Mbr,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpt => "GPT",
            Self::Mbr => "MBR",
        })
    }
}

/// What is wrong with the tables of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// There is a GPT without an MBR that protects it.
    #[error("there is a GPT, but no MBR that protects it")]
    NoProtection,
    /// The entry that protects the GPT is not at sector 1.
    #[error("the entry of the MBR that protects the GPT does not begin at sector 1")]
    Protection,
    /// There are a GPT and an MBR that does not protect it.
    #[error("there are a GPT and an MBR that does not protect it: programs choose one of them")]
    TwoTables,
    /// The GPT has no header at the start of the disk.
    #[error("the GPT has no header at the start of the disk")]
    NoHeader,
    /// The header of the GPT is damaged.
    #[error("the header of the GPT is damaged")]
    Header,
    /// The entries of the GPT are damaged.
    #[error("the entries of the GPT are damaged: their checksum is wrong")]
    Entries,
    /// The two copies of the GPT have different entries for the partition.
    #[error("the two copies of the GPT differ")]
    Copies,
    /// The table of a logical partition is missing, or not within the extended partition.
    #[error("the chain of logical partitions is damaged")]
    Chain,
    /// Programs number the logical partitions differently.
    #[error("programs number its logical partitions differently")]
    Numbers,
}

/// Why a partition is not found, or not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartitionError {
    /// There is neither a GPT nor an MBR.
    #[error("there is no table of partitions")]
    NoTable,
    /// There is no partition with this number.
    #[error("there is no partition {number}: {}", present(*.table, .there))]
    NoSuch {
        /// The number.
        number: u32,
        /// The kind of the table.
        table: Table,
        /// The numbers that there are.
        there: Vec<u32>,
    },
    /// The partition holds logical partitions.
    #[error("partition {0} is an extended one: it holds the logical partitions, from 5 on")]
    Extended(u32),
    /// The tables are damaged, or could be understood in two ways.
    #[error("{fault}{}", second_copy(.backup.as_ref()))]
    Damaged {
        /// What is wrong.
        fault: Fault,
        /// The bytes of the partition, as the valid second copy of a GPT has them.
        backup: Option<Range<u64>>,
    },
    /// The partition does not lie within the disk, or not where the table may have one.
    #[error("partition {0} does not lie within the disk")]
    Outside(u32),
    /// The partition shares sectors with another one, or with a table.
    #[error("partition {number} overlaps {}", overlapped(*.other))]
    Overlap {
        /// The number.
        number: u32,
        /// The number of the other partition. `None` is a table of partitions.
        other: Option<u32>,
    },
    /// The storage failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl From<Fault> for PartitionError {
    fn from(fault: Fault) -> Self {
        let backup = None;
        Self::Damaged { fault, backup }
    }
}

fn present(table: Table, numbers: &[u32]) -> String {
    match numbers {
        [] => format!("the {table} has none"),
        [one] => format!("the {table} has only partition {one}"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(u32::to_string).collect();
            format!("the {table} has {} and {last}", first.join(", "))
        }
    }
}

fn second_copy(range: Option<&Range<u64>>) -> String {
    range.map_or_else(String::new, |Range { start, end }| {
        let size = end - start;
        format!("; its second copy has the partition at byte {start}, with {size} bytes")
    })
}

fn overlapped(number: Option<u32>) -> String {
    number.map_or_else(
        || "a table of partitions".to_owned(),
        |number| format!("partition {number}"),
    )
}
