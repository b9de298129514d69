//! How many pages LMDB may use again, read from its file.
//!
//! LMDB keeps a list of the pages that each transaction freed, and uses none of them before the last snapshot that was
//! begun earlier has ended.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::walk::{Damage, Node, Tree, newest_meta, nodes, u64_at};

const PAGE: u64 = 4_096;
const PAGE_HEADER: u64 = 16;

/// Counts the pages that were freed before a transaction, until there are enough. Only for who holds LMDB's lock of
/// writers: then nobody writes the file.
pub(crate) fn pages_freed_before(
    file: &File,
    transaction: u64,
    enough: u64,
) -> Result<u64, Damage> {
    let free = newest_meta(file)?.free;
    let mut count = Count {
        file,
        transaction,
        enough,
        pages: 0,
    };
    if let Some(root) = free.root() {
        count.page(root, 1, &free)?;
    }
    Ok(count.pages)
}

struct Count<'a> {
    file: &'a File,
    transaction: u64,
    enough: u64,
    pages: u64,
}

impl Count<'_> {
    /// Counts what stands below a page; answers whether to go on behind it.
    fn page(&mut self, number: u64, level: u16, tree: &Tree) -> Result<bool, Damage> {
        let mut page = [0; PAGE as usize];
        self.read(number * PAGE, &mut page)?;
        let nodes =
            nodes(&page).ok_or_else(|| format!("page {number} of the free list is damaged"))?;
        for node in &nodes {
            let goes_on = match level < tree.depth() {
                true => self.page(node.child(), level + 1, tree)?,
                false => self.record(node)?,
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A record: the transaction that freed pages, and how many they are.
    fn record(&mut self, node: &Node<'_>) -> Result<bool, Damage> {
        let freed_by = u64_at(node.key, 0).ok_or("a record of the free list has no transaction")?;
        if freed_by >= self.transaction {
            return Ok(false);
        }
        let data = u64_at(node.data, 0).ok_or("a record of the free list has no length")?;
        self.pages += match node.is_big() {
            true => self.number_at(data * PAGE + PAGE_HEADER)?,
            false => data,
        };
        Ok(self.pages < self.enough)
    }

    fn number_at(&self, at: u64) -> Result<u64, Damage> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), Damage> {
        self.file
            .read_exact_at(bytes, at)
            .map_err(|error| format!("the free list: {error}"))
    }
}
