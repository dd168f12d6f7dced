//! The job's files on their way to its pods: ConfigMaps with a key for each file, and the paths that the files get there.
//!
//! Keys are numbered, so that no two names collide and any name will do; paths, modes and bytes arrive as they are, and no
//! image needs a program to unpack them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maddock_sdk::serde_json::{Map, Value, json};
use maddock_sdk::types::Error;
use maddock_sdk::{Result, files, invalid};

use crate::names;

/// What a ConfigMap holds: the cluster's limit, less what is around the values.
const MOST_IN_ONE: usize = (1 << 20) - (25 << 10);
/// ConfigMaps of one job: together they are what a workspace of scripts may come to.
const MOST_MAPS: usize = 8;
/// Files of one job.
const MOST_FILES: usize = 4000;
/// Directories below each other.
const DEEPEST: usize = 40;
/// Files that an error names.
const NAMED: usize = 5;
/// Where the workspace lies among the files.
pub const WORKSPACE: &str = "w";

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Relative to the directory in which all are mounted.
    pub path: String,
    /// The content.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

impl File {
    /// A text of our own.
    #[must_use]
    pub fn text(path: &str, content: String) -> Self {
        Self { path: path.to_owned(), bytes: content.into_bytes(), mode: 0o755 }
    }
}

/// Files by ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    maps: Vec<Vec<(String, File)>>,
}

impl Bundle {
    /// Puts files into as few ConfigMaps as they fit in.
    ///
    /// # Errors
    /// They are too large, or too many.
    pub fn pack(mut files: Vec<File>) -> Result<Self> {
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let sizes: Vec<(String, usize)> = files.iter().map(|file| (file.path.clone(), file.bytes.len())).collect();
        fits(&sizes)?;
        let mut maps: Vec<(usize, Vec<(String, File)>)> = Vec::new();
        let mut sorted: Vec<(String, File)> =
            files.into_iter().enumerate().map(|(number, file)| (names::key(number, &file.path), file)).collect();
        // Large ones first, or little would fit beside them.
        sorted.sort_by_key(|(_, file)| std::cmp::Reverse(file.bytes.len()));
        for (key, file) in sorted {
            let cost = cost(&key, &file);
            let free = maps.iter_mut().find(|(used, _)| used.saturating_add(cost) <= MOST_IN_ONE);
            match free {
                Some((used, map)) => {
                    *used = used.saturating_add(cost);
                    map.push((key, file));
                }
                None => maps.push((cost, vec![(key, file)])),
            }
        }
        if maps.len() > MOST_MAPS {
            return Err(too_large(&sizes));
        }
        let mut maps: Vec<Vec<(String, File)>> = maps.into_iter().map(|(_, map)| map).collect();
        for map in &mut maps {
            map.sort_by(|one, other| one.0.cmp(&other.0));
        }
        Ok(Self { maps })
    }

    /// The objects, in a namespace.
    #[must_use]
    pub fn objects(&self, job: &str, metadata: &dyn Fn(&str) -> Value) -> Vec<Value> {
        let mut objects = Vec::new();
        for (number, map) in self.maps.iter().enumerate() {
            let (mut data, mut binary) = (Map::new(), Map::new());
            for (key, file) in map {
                match std::str::from_utf8(&file.bytes) {
                    Ok(text) if !text.contains('\0') => data.insert(key.clone(), json!(text)),
                    _ => binary.insert(key.clone(), json!(STANDARD.encode(&file.bytes))),
                };
            }
            let mut object = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata(&map_name(job, number)),
                "immutable": true,
            });
            for (member, values) in [("data", data), ("binaryData", binary)] {
                if !values.is_empty()
                    && let Some(object) = object.as_object_mut()
                {
                    object.insert(member.to_owned(), Value::Object(values));
                }
            }
            objects.push(object);
        }
        objects
    }

    /// The volume in which all files have their paths and modes.
    #[must_use]
    pub fn volume(&self, job: &str) -> Value {
        let sources: Vec<Value> = self
            .maps
            .iter()
            .enumerate()
            .map(|(number, map)| {
                let items: Vec<Value> =
                    map.iter().map(|(key, file)| json!({"key": key, "path": file.path, "mode": file.mode})).collect();
                json!({"configMap": {"name": map_name(job, number), "items": items}})
            })
            .collect();
        json!({"sources": sources})
    }

    /// How many files there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.maps.iter().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

const ELSEWHERE: &str = "put large files into the image, or into a claim that `k8s.data_pvc` names";

fn map_name(job: &str, number: usize) -> String {
    if number == 0 { format!("{job}-files") } else { format!("{job}-files-{}", number.saturating_add(1)) }
}

fn cost(key: &str, file: &File) -> usize {
    key.len().saturating_add(file.bytes.len())
}

fn too_large(files: &[(String, usize)]) -> Error {
    let total = files.iter().fold(0_usize, |total, (_, size)| total.saturating_add(*size));
    let mut files: Vec<&(String, usize)> = files.iter().collect();
    files.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let named = files.iter().take(NAMED).map(|(path, bytes)| {
        let name = path.strip_prefix(WORKSPACE).and_then(|name| name.strip_prefix('/')).unwrap_or(path);
        format!("`{name}` ({})", size(*bytes))
    });
    invalid(format!(
        "the job's files come to {}; a cluster takes {} in one file and {} in all; the largest are {}",
        size(total),
        size(MOST_IN_ONE),
        size(MOST_IN_ONE.saturating_mul(MOST_MAPS)),
        named.collect::<Vec<_>>().join(", ")
    ))
    .hint(ELSEWHERE)
}

fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{}.{} MiB", bytes >> 20, (bytes & 0xf_ffff).saturating_mul(10) >> 20),
    }
}

/// All files below a directory of this machine; none where it is not there.
///
/// # Errors
/// Something cannot be read, or there is too much of it.
pub fn gather(directory: &str) -> Result<Vec<File>> {
    let mut found = Vec::new();
    if files::stat(directory)?.is_some() {
        find(directory, "", 0, &mut found)?;
    }
    // Before anything is read: a data set may lie beside the script.
    let sizes: Vec<(String, usize)> = found.iter().map(|(name, size, _)| (name.clone(), *size)).collect();
    fits(&sizes)?;
    let mut gathered = Vec::new();
    for (name, _, mode) in found {
        let bytes = files::read(&format!("{directory}/{name}"), MOST_IN_ONE as u64)
            .map_err(|error| error.during("reading a file of the job"))?;
        gathered.push(File { path: format!("{WORKSPACE}/{name}"), bytes, mode: mode & 0o777 });
    }
    Ok(gathered)
}

fn find(root: &str, directory: &str, depth: usize, found: &mut Vec<(String, usize, u32)>) -> Result<()> {
    if depth > DEEPEST {
        return Err(invalid(format!("`{directory}` lies {DEEPEST} directories deep")).hint(ELSEWHERE));
    }
    let path = if directory.is_empty() { root.to_owned() } else { format!("{root}/{directory}") };
    for entry in files::list_directory(&path)? {
        let name = if directory.is_empty() { entry.name } else { format!("{directory}/{}", entry.name) };
        match entry.kind {
            files::FileKind::Directory => find(root, &name, depth.saturating_add(1), found)?,
            files::FileKind::File => {
                if let Some(info) = files::stat(&format!("{root}/{name}"))? {
                    found.push((name, usize::try_from(info.size).unwrap_or(usize::MAX), info.mode));
                }
            }
            files::FileKind::Other => {}
        }
    }
    Ok(())
}

/// Whether files of these names and sizes can go to a pod at all.
fn fits(files: &[(String, usize)]) -> Result<()> {
    let total = files.iter().fold(0_usize, |total, (_, size)| total.saturating_add(*size));
    if files.len() > MOST_FILES {
        return Err(
            invalid(format!("the job has {} files, and {MOST_FILES} can go to a pod", files.len())).hint(ELSEWHERE)
        );
    }
    if total <= MOST_IN_ONE.saturating_mul(MOST_MAPS) && files.iter().all(|(_, size)| *size <= MOST_IN_ONE - 300) {
        return Ok(());
    }
    Err(too_large(files))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: impl Into<Vec<u8>>) -> File {
        File { path: path.to_owned(), bytes: bytes.into(), mode: 0o644 }
    }

    fn objects(bundle: &Bundle) -> Vec<Value> {
        bundle.objects("j", &|name| json!({"name": name}))
    }

    /// What a pod sees: path to bytes.
    fn arrived(bundle: &Bundle) -> Vec<(String, Vec<u8>)> {
        let objects = objects(bundle);
        let volume = bundle.volume("j");
        let mut all = Vec::new();
        for (source, object) in volume["sources"].as_array().unwrap().iter().zip(&objects) {
            assert_eq!(source["configMap"]["name"], object["metadata"]["name"]);
            for item in source["configMap"]["items"].as_array().unwrap() {
                let key = item["key"].as_str().unwrap();
                let bytes = match (&object["data"][key], &object["binaryData"][key]) {
                    (Value::String(text), Value::Null) => text.clone().into_bytes(),
                    (Value::Null, Value::String(text)) => STANDARD.decode(text).unwrap(),
                    other => panic!("{key}: {other:?}"),
                };
                all.push((item["path"].as_str().unwrap().to_owned(), bytes));
            }
        }
        all.sort();
        all
    }

    #[test]
    fn every_file_arrives_under_its_own_name_whatever_that_is() {
        let files = [
            file("w/a/b-c", "one\r\n"),
            file("w/a-b/c", "two"),
            file("w/a b$(id)\n'\"", "three"),
            file("w/日本", vec![0xff, 0, 1]),
            file("w/nul", vec![b'a', 0, b'b']),
            file("w/empty", ""),
            file("w/..x", ""),
        ];
        let bundle = Bundle::pack(files.to_vec()).unwrap();
        let mut expected: Vec<_> = files.iter().map(|file| (file.path.clone(), file.bytes.clone())).collect();
        expected.sort();
        assert_eq!(arrived(&bundle), expected);
    }

    #[test]
    fn several_maps_carry_what_one_cannot_and_none_is_too_large() {
        let files: Vec<File> = (0..5).map(|number| file(&format!("w/{number}"), vec![b'x'; 700 << 10])).collect();
        let bundle = Bundle::pack(files).unwrap();
        assert_eq!(objects(&bundle).len(), 5);
        assert_eq!(arrived(&bundle).len(), 5);
        for object in objects(&bundle) {
            let held: usize =
                object["data"].as_object().unwrap().values().map(|value| value.as_str().unwrap().len()).sum();
            assert!(held <= MOST_IN_ONE);
        }
    }

    #[test]
    fn what_is_too_large_is_refused_with_the_names_of_the_largest() {
        for files in [
            vec![file("w/run.sh", "x"), file("w/model.bin", vec![0; MOST_IN_ONE + 1])],
            (0..20).map(|number| file(&format!("w/model.bin.{number}"), vec![0; 900 << 10])).collect(),
        ] {
            let error = Bundle::pack(files).unwrap_err();
            assert!(error.message.contains("the largest are `model.bin"), "{}", error.message);
            assert!(error.hint.unwrap().contains("image"));
        }
    }
}
