//! Reading a token cache.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use safetensors::tensor::Dtype;
use safetensors::SafeTensors;

use super::{shard_name, CacheHeader, ShardEntry, ShardHeader, ENTRY, HEADER, TOKENS, VERSION};
use crate::data::dataset::Item;
use crate::data::error::DataError;
use crate::data::fingerprint::Fingerprint;
use crate::files::{self, sha256};

/// Bytes of the largest file of a cache.
pub(super) const MOST_BYTES: u64 = 64 << 30;

/// A finished token cache whose files are as they were written.
#[derive(Debug)]
pub struct TokenCache {
    folder: PathBuf,
    header: CacheHeader,
    items: Vec<Item>,
    shards: Vec<Shard>,
}

/// A file of the cache. It is opened for every read, so that a cache of any size needs
/// one descriptor.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    /// Where the tokens start in the file.
    start: u64,
    /// The shard's first item in the cache.
    first: usize,
}

impl TokenCache {
    /// Whether `folder` is that of a token cache, finished or not.
    pub fn is_at(folder: &Path) -> bool {
        folder.join(HEADER).exists() || folder.join(shard_name(0)).exists()
    }

    /// Opens the cache in `folder` and checks every file against its checksum.
    ///
    /// # Errors
    ///
    /// A cache that is not finished, a file that is missing, damaged or of another cache.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let header = header(folder)?;
        let opened: Result<Vec<(Shard, Vec<Item>)>, DataError> = header
            .shards
            .par_iter()
            .map(|entry| open_shard(&folder.join(&entry.file), &entry.sha256, &header))
            .collect();
        let mut items = Vec::new();
        let mut shards = Vec::new();
        for (mut shard, of_shard) in opened? {
            shard.first = items.len();
            items.extend(of_shard);
            shards.push(shard);
        }
        if items.is_empty() {
            return Err(DataError::format(folder, "a token cache without items"));
        }
        Ok(TokenCache {
            folder: folder.to_path_buf(),
            header,
            items,
            shards,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn header(&self) -> &CacheHeader {
        &self.header
    }

    /// The items whose tokens are here.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// What the list of items is, to compare with that of a former run.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_items(&self.items)
    }

    /// Tokens per picture L.
    pub fn tokens_per_image(&self) -> usize {
        (self.header.grid[0] * self.header.grid[1]) as usize
    }

    /// How often each code below K occurs in all views.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::tokens`].
    pub fn usage(&self) -> Result<Vec<u64>, DataError> {
        let mut usage = vec![0; self.header.codes as usize];
        for shard in &self.shards {
            let bytes = files::read(&shard.path, MOST_BYTES)?;
            let tokens = bytes.get(shard.start as usize..).unwrap_or_default();
            for token in words(tokens) {
                match usage.get_mut(usize::from(token)) {
                    Some(count) => *count += 1,
                    None => return Err(self.not_a_code(shard, token.into())),
                }
            }
        }
        Ok(usage)
    }

    /// Refuses a codec other than the one whose codes these are.
    pub fn check_codec(&self, fingerprint: &str) -> Result<(), DataError> {
        if self.header.codec == fingerprint {
            return Ok(());
        }
        let problem = format!(
            "holds tokens of the codec {}, but the model's is {fingerprint}",
            self.header.codec
        );
        Err(DataError::format(&self.folder, problem))
    }

    /// The tokens of a view of an item: L numbers below K.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, and tokens that are not below K.
    pub fn tokens(&self, item: usize, view: usize) -> Result<Vec<i64>, DataError> {
        let length = self.tokens_per_image();
        let shard = &self.shards[self.shards.partition_point(|s| s.first <= item) - 1];
        let row = (item - shard.first) * self.header.recipe.views as usize + view;
        let mut bytes = vec![0; 2 * length];
        let at = shard.start + (row * bytes.len()) as u64;
        File::open(&shard.path)
            .and_then(|file| file.read_exact_at(&mut bytes, at))
            .map_err(DataError::io(&shard.path))?;
        let tokens: Vec<i64> = words(&bytes).map(i64::from).collect();
        match tokens.iter().find(|&&token| token >= self.header.codes) {
            None => Ok(tokens),
            Some(&token) => Err(self.not_a_code(shard, token)),
        }
    }

    fn not_a_code(&self, shard: &Shard, token: i64) -> DataError {
        let problem = format!("token {token}, expected below {}", self.header.codes);
        DataError::format(&shard.path, problem)
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
}

/// The header of the cache in `folder`.
pub(super) fn header(folder: &Path) -> Result<CacheHeader, DataError> {
    let path = folder.join(HEADER);
    if folder.is_dir() && !path.exists() {
        let problem = format!(
            "not a finished token cache (no {HEADER} in it); the same tokenize command goes on"
        );
        return Err(DataError::format(folder, problem));
    }
    let bytes = files::read(&path, MOST_BYTES)?;
    let header: CacheHeader =
        serde_json::from_slice(&bytes).map_err(|e| DataError::format(&path, e))?;
    if header.format_version != VERSION {
        let problem = format!(
            "format version {}, expected {VERSION}",
            header.format_version
        );
        return Err(DataError::format(&path, problem));
    }
    let [rows, columns] = header.grid;
    let possible = [
        ("codes", header.codes, 1 << 16),
        ("grid", rows.min(columns), 1 << 12),
        ("grid", rows.max(columns), 1 << 12),
        ("views", header.recipe.views.into(), 1 << 12),
    ];
    match possible
        .iter()
        .find(|(_, found, most)| !(1..=*most).contains(found))
    {
        None => Ok(header),
        Some((key, found, most)) => {
            let problem = format!("{key} is {found}, expected 1 to {most}");
            Err(DataError::format(&path, problem))
        }
    }
}

/// The header and tokens of the shard at `path`, if it is one of the cache `cache` and as
/// the header `finished` of a whole cache, where there is one, recorded it.
pub(super) fn finished_shard(
    path: &Path,
    cache: &str,
    finished: Option<&CacheHeader>,
) -> Result<Option<(ShardHeader, Vec<u16>)>, DataError> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = files::read(path, MOST_BYTES)?;
    if let Some(header) = finished {
        let name = path.file_name().and_then(|name| name.to_str());
        let recorded = |entry: &&ShardEntry| Some(entry.file.as_str()) == name;
        let entry = header.shards.iter().find(recorded);
        if entry.is_none_or(|entry| entry.sha256 != sha256(&bytes)) {
            return Ok(None);
        }
    }
    Ok(parse(&bytes)
        .ok()
        .filter(|shard| shard.header.cache == cache)
        .map(|shard| (shard.header, words(&bytes[shard.start..]).collect())))
}

struct Parsed {
    header: ShardHeader,
    shape: Vec<usize>,
    start: usize,
}

fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    let (size, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let entry = metadata
        .metadata()
        .as_ref()
        .and_then(|entries| entries.get(ENTRY))
        .ok_or_else(|| format!("not a shard of a token cache (no metadata entry '{ENTRY}')"))?;
    let header: ShardHeader = serde_json::from_str(entry).map_err(|e| e.to_string())?;
    let info = metadata
        .info(TOKENS)
        .filter(|info| info.dtype == Dtype::U16)
        .ok_or_else(|| format!("holds no tensor '{TOKENS}' of 16-bit numbers"))?;
    let start = size + 8 + info.data_offsets.0;
    if bytes.len() != size + 8 + info.data_offsets.1 {
        return Err("is shorter or longer than its header says".into());
    }
    Ok(Parsed {
        header,
        shape: info.shape.clone(),
        start,
    })
}

fn open_shard(
    path: &Path,
    checksum: &str,
    cache: &CacheHeader,
) -> Result<(Shard, Vec<Item>), DataError> {
    let bytes = files::read(path, MOST_BYTES)?;
    if sha256(&bytes) != checksum {
        let problem = "is damaged: its SHA-256 is not the one recorded; tokenize again";
        return Err(DataError::format(path, problem));
    }
    let shard = parse(&bytes).map_err(|problem| DataError::format(path, problem))?;
    let length = (cache.grid[0] * cache.grid[1]) as usize;
    let expected = vec![
        shard.header.items.len(),
        cache.recipe.views as usize,
        length,
    ];
    if shard.shape != expected {
        let problem = format!("tokens of shape {:?}, expected {expected:?}", shard.shape);
        return Err(DataError::format(path, problem));
    }
    let opened = Shard {
        path: path.to_path_buf(),
        start: shard.start as u64,
        first: 0,
    };
    Ok((opened, shard.header.items))
}
