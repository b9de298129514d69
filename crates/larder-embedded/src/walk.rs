//! A walk through LMDB's file, without mapping it.
//!
//! LMDB trusts its file: a truncated one is SIGBUS, a damaged page a crash or an endless loop. So before the file is
//! opened, every page that the newest snapshot reaches is read and checked: kinds, bounds, that keys are in order, that each
//! page is reached once, the free list, the counts, and each record's checksum. The form is that of LMDB 0.9.70
//! (`mdb.c`), on a 64-bit little-endian machine.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::record::{Record, expiry_time, hash};

const PAGE: usize = 4_096;
const PAGE_HEADER: usize = 16;
const NODE_HEADER: usize = 8;
const META_BYTES: usize = 136;
const MAGIC: u32 = 0xbeef_c0de;
const VERSION: u32 = 1;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
const META: u16 = 0x08;
/// A flag of the free list's tree.
const INTEGER_KEY: u16 = 0x08;
/// Set while a page is in memory only; LMDB leaves it on pages that it wrote.
const DIRTY: u16 = 0x10;

const BIG_DATA: u16 = 0x01;
const SUB_DATABASE: u16 = 0x02;

const NO_PAGE: u64 = u64::MAX;
/// No tree of a file that fits on a disk is deeper.
const MAX_DEPTH: u16 = 32;

/// What is wrong with a file, in words for the log.
pub(crate) type Damage = String;

/// Checks LMDB's file. Its length may be 0: then LMDB makes it.
pub(crate) fn check(file: &File) -> Result<(), Damage> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length == 0 {
        return Ok(());
    }
    let meta = newest_meta(file)?;
    let pages = usize::try_from(meta.last_page + 1).map_err(|_| "impossible last page")?;
    let mut walk = Walk {
        file,
        // The last pages may be free ones that were never written.
        pages_in_file: length / PAGE as u64,
        reached: vec![false; pages],
    };
    walk.reached[0] = true;
    walk.reached[1] = true;
    walk.tree(&meta.free, Content::FreeList)?;
    walk.tree(&meta.main, Content::Entries)?;
    // A page that nothing reaches is lost, and does no harm.
    Ok(())
}

/// What a database's records are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    FreeList,
    /// The unnamed database: the entries, and the names of the others.
    Entries,
    Expiry,
    /// Leases or versions.
    Beside,
}

/// How many pages of each kind a tree has.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Pages {
    branch: u64,
    leaf: u64,
    overflow: u64,
}

#[derive(Clone, Copy)]
pub(crate) struct Tree {
    flags: u16,
    depth: u16,
    pages: Pages,
    entries: u64,
    root: u64,
}

pub(crate) struct Meta {
    pub(crate) free: Tree,
    main: Tree,
    last_page: u64,
    transaction: u64,
}

pub(crate) fn newest_meta(file: &File) -> Result<Meta, Damage> {
    let mut metas = Vec::with_capacity(2);
    for page in 0..2_u64 {
        let mut bytes = [0; PAGE];
        file.read_exact_at(&mut bytes, page * PAGE as u64)
            .map_err(|error| format!("meta page {page}: {error}"))?;
        metas.push(read_meta(&bytes).ok_or_else(|| format!("meta page {page} is damaged"))?);
    }
    let [first, second] = [metas[0].transaction, metas[1].transaction];
    // Each transaction writes the page that the one before it did not.
    let is_pair = first.abs_diff(second) == 1 && first % 2 == 0;
    if !is_pair && (first, second) != (0, 0) {
        return Err("the meta pages don't belong together".to_owned());
    }
    let newest = metas.into_iter().max_by_key(|meta| meta.transaction);
    newest.ok_or_else(|| "there is no meta page".to_owned())
}

fn read_meta(page: &[u8; PAGE]) -> Option<Meta> {
    let meta = &page[PAGE_HEADER..PAGE_HEADER + META_BYTES];
    let is_meta = u16_at(page, 10)? & META != 0
        && u32_at(meta, 0)? == MAGIC
        && u32_at(meta, 4)? == VERSION
        && u64_at(meta, 8)? == 0
        && u32_at(meta, 24)? as usize == PAGE;
    let map_bytes = u64_at(meta, 16)?;
    let last_page = u64_at(meta, 120)?;
    let fits = last_page >= 1 && last_page < map_bytes / PAGE as u64 && map_bytes <= 1 << 46;
    (is_meta && fits).then_some(Meta {
        free: read_tree(&meta[24..72])?,
        main: read_tree(&meta[72..120])?,
        last_page,
        transaction: u64_at(meta, 128)?,
    })
}

fn read_tree(bytes: &[u8]) -> Option<Tree> {
    Some(Tree {
        flags: u16_at(bytes, 4)?,
        depth: u16_at(bytes, 6)?,
        pages: Pages {
            branch: u64_at(bytes, 8)?,
            leaf: u64_at(bytes, 16)?,
            overflow: u64_at(bytes, 24)?,
        },
        entries: u64_at(bytes, 32)?,
        root: u64_at(bytes, 40)?,
    })
}

impl Tree {
    pub(crate) fn root(&self) -> Option<u64> {
        (self.root != NO_PAGE).then_some(self.root)
    }

    pub(crate) fn depth(&self) -> u16 {
        self.depth
    }
}

struct Walk<'a> {
    file: &'a File,
    pages_in_file: u64,
    reached: Vec<bool>,
}

/// What a walk through one tree keeps.
struct Cursor {
    content: Content,
    depth: u16,
    pages: Pages,
    entries: u64,
    last_key: Option<Vec<u8>>,
    /// The databases whose names stand in this one.
    databases: Vec<(Content, Tree)>,
}

impl Walk<'_> {
    fn tree(&mut self, tree: &Tree, content: Content) -> Result<(), Damage> {
        // LMDB aborts the process over flags that it did not set.
        let flags = match content {
            Content::FreeList => INTEGER_KEY,
            _ => 0,
        };
        if tree.flags != flags {
            return Err("a tree has impossible flags".to_owned());
        }
        if tree.root == NO_PAGE {
            let is_empty = tree.entries == 0 && tree.depth == 0 && tree.pages == Pages::default();
            return is_empty
                .then_some(())
                .ok_or_else(|| "a tree without a root has entries".to_owned());
        }
        if tree.depth == 0 || tree.depth > MAX_DEPTH {
            return Err("a tree has an impossible depth".to_owned());
        }
        let mut cursor = Cursor {
            content,
            depth: tree.depth,
            pages: Pages::default(),
            entries: 0,
            last_key: None,
            databases: Vec::new(),
        };
        self.page(tree.root, 1, &mut cursor)?;
        if cursor.pages != tree.pages {
            return Err("a tree's counts of pages are wrong".to_owned());
        }
        if cursor.entries != tree.entries {
            return Err(format!(
                "a tree says {} entries and has {}",
                tree.entries, cursor.entries
            ));
        }
        for (content, tree) in cursor.databases {
            self.tree(&tree, content)?;
        }
        Ok(())
    }

    fn page(&mut self, number: u64, level: u16, cursor: &mut Cursor) -> Result<(), Damage> {
        let page = self.read(number, 1)?;
        let damaged = |what: &str| format!("page {number}: {what}");
        let flags = u16_at(&page, 10).unwrap_or(0) & !DIRTY;
        let expected = if level < cursor.depth { BRANCH } else { LEAF };
        if flags != expected {
            return Err(damaged("is of another kind than its place"));
        }
        let nodes = nodes(&page).ok_or_else(|| damaged("has impossible bounds"))?;
        match flags {
            BRANCH => cursor.pages.branch += 1,
            _ => cursor.pages.leaf += 1,
        }
        if nodes.is_empty() || (flags == BRANCH && nodes.len() < 2) {
            return Err(damaged("has too few nodes"));
        }
        for (index, node) in nodes.into_iter().enumerate() {
            if flags == BRANCH {
                if index > 0
                    && cursor
                        .last_key
                        .as_ref()
                        .is_some_and(|last| before(cursor.content, node.key, last))
                {
                    return Err(damaged("has keys out of order"));
                }
                self.page(node.child(), level + 1, cursor)?;
            } else {
                self.leaf_node(&node, cursor)
                    .map_err(|what| damaged(&what))?;
            }
        }
        Ok(())
    }

    fn leaf_node(&mut self, node: &Node<'_>, cursor: &mut Cursor) -> Result<(), Damage> {
        if let Some(last) = &cursor.last_key
            && !before(cursor.content, last, node.key)
        {
            return Err("has keys out of order".to_owned());
        }
        cursor.last_key = Some(node.key.to_vec());
        cursor.entries += 1;
        let big;
        let data = if node.flags & BIG_DATA != 0 {
            big = self.overflow(node, &mut cursor.pages)?;
            &big[..]
        } else {
            node.data
        };
        let is_whole = match (cursor.content, node.flags & !BIG_DATA) {
            (Content::Entries, SUB_DATABASE) => note_database(node.key, data, cursor).is_some(),
            (Content::Entries | Content::Beside, 0) => Record::read(hash(node.key), data).is_some(),
            (Content::Expiry, 0) => node.key.len() == 16 && expiry_time(node.key).is_some(),
            (Content::FreeList, 0) => self.free_pages(data).is_some(),
            _ => return Err("has a node of an unknown kind".to_owned()),
        };
        is_whole
            .then_some(())
            .ok_or_else(|| "has a damaged record".to_owned())
    }

    /// The data that a node's own page has no room for.
    fn overflow(&mut self, node: &Node<'_>, met: &mut Pages) -> Result<Vec<u8>, Damage> {
        let number = u64_at(node.data, 0).ok_or("has no overflow page")?;
        let needed = (PAGE_HEADER - 1 + node.data_bytes) / PAGE + 1;
        let bytes = self.read(number, needed)?;
        let pages = u32_at(&bytes, 12).unwrap_or(0) as usize;
        // A value that became shorter within one transaction keeps the pages that it had.
        if u16_at(&bytes, 10).unwrap_or(0) & !DIRTY != OVERFLOW || pages < needed {
            return Err("points to an overflow page that is none".to_owned());
        }
        self.reach(number + needed as u64, pages - needed)?;
        met.overflow += pages as u64;
        Ok(bytes[PAGE_HEADER..PAGE_HEADER + node.data_bytes].to_vec())
    }

    /// A list of free pages: its length, then the pages' numbers, falling.
    fn free_pages(&mut self, data: &[u8]) -> Option<()> {
        let count = usize::try_from(u64_at(data, 0)?).ok()?;
        if data.len() < count.checked_add(1)?.checked_mul(8)? {
            return None;
        }
        let mut last = u64::MAX;
        for index in 1..=count {
            let page = u64_at(data, index * 8)?;
            if page >= last {
                return None;
            }
            last = page;
            self.reach(page, 1).ok()?;
        }
        Some(())
    }

    /// Reads pages that have not been reached before.
    fn read(&mut self, number: u64, count: usize) -> Result<Vec<u8>, Damage> {
        self.reach(number, count)?;
        if number + count as u64 > self.pages_in_file {
            return Err(format!("page {number} lies behind the end of the file"));
        }
        let mut bytes = vec![0; count * PAGE];
        self.file
            .read_exact_at(&mut bytes, number * PAGE as u64)
            .map_err(|error| format!("page {number}: {error}"))?;
        if u64_at(&bytes, 0) != Some(number) {
            return Err(format!("page {number} has another number"));
        }
        Ok(bytes)
    }

    fn reach(&mut self, number: u64, count: usize) -> Result<(), Damage> {
        let begin = usize::try_from(number).map_err(|_| "impossible page number")?;
        let pages = begin
            .checked_add(count)
            .and_then(|end| self.reached.get_mut(begin..end))
            .ok_or_else(|| format!("page {number} lies behind the last one"))?;
        if pages.iter().any(|reached| *reached) {
            return Err(format!("page {number} is reached twice"));
        }
        pages.fill(true);
        Ok(())
    }
}

fn note_database(name: &[u8], data: &[u8], cursor: &mut Cursor) -> Option<()> {
    let content = match name {
        b"expiry" => Content::Expiry,
        b"leases" | b"versions" => Content::Beside,
        _ => return None,
    };
    let tree = (data.len() == 48).then(|| read_tree(data))??;
    cursor.databases.push((content, tree));
    Some(())
}

/// Whether a key stands before another in the order of its tree.
fn before(content: Content, key: &[u8], other: &[u8]) -> bool {
    match content {
        Content::FreeList => u64_at(key, 0) < u64_at(other, 0),
        _ => key < other,
    }
}

pub(crate) struct Node<'a> {
    flags: u16,
    low: u16,
    high: u16,
    pub(crate) key: &'a [u8],
    /// A page's number where the data is big.
    pub(crate) data: &'a [u8],
    data_bytes: usize,
}

impl Node<'_> {
    pub(crate) fn child(&self) -> u64 {
        u64::from(self.low) | u64::from(self.high) << 16 | u64::from(self.flags) << 32
    }

    /// Whether the data stands on pages of its own.
    pub(crate) fn is_big(&self) -> bool {
        self.flags & BIG_DATA != 0
    }
}

/// A page's nodes; `None` if they don't lie in it.
pub(crate) fn nodes(page: &[u8]) -> Option<Vec<Node<'_>>> {
    let is_branch = u16_at(page, 10)? & BRANCH != 0;
    let lower = usize::from(u16_at(page, 12)?);
    let upper = usize::from(u16_at(page, 14)?);
    if lower < PAGE_HEADER || lower > upper || upper > PAGE || lower % 2 != 0 {
        return None;
    }
    let count = (lower - PAGE_HEADER) / 2;
    let mut nodes = Vec::with_capacity(count);
    for index in 0..count {
        let at = usize::from(u16_at(page, PAGE_HEADER + index * 2)?);
        if at < upper || at % 2 != 0 {
            return None;
        }
        nodes.push(read_node(page.get(at..)?, is_branch)?);
    }
    Some(nodes)
}

fn read_node(bytes: &[u8], is_branch: bool) -> Option<Node<'_>> {
    let (low, high) = (u16_at(bytes, 0)?, u16_at(bytes, 2)?);
    let flags = u16_at(bytes, 4)?;
    let key_bytes = usize::from(u16_at(bytes, 6)?);
    let key = bytes.get(NODE_HEADER..NODE_HEADER + key_bytes)?;
    let data_bytes = usize::from(low) | usize::from(high) << 16;
    let rest = &bytes[NODE_HEADER + key_bytes..];
    let data = match (is_branch, flags & BIG_DATA != 0) {
        (true, _) => &rest[..0],
        (false, true) => rest.get(..8)?,
        (false, false) => rest.get(..data_bytes)?,
    };
    Some(Node {
        flags,
        low,
        high,
        key,
        data,
        data_bytes,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
