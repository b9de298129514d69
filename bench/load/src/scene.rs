//! What a side is asked to do.

use crate::Error;

/// What is done again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Looks up what is there.
    Hit,
    /// Stores.
    Set,
}

/// What the tasks run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// Two worker threads.
    Workers,
    /// The calling thread alone.
    Current,
}

/// What a side is asked to do. Written as arguments, `name=value`, and read back from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    /// What is measured.
    pub act: Act,
    /// So many entries are there.
    pub keys: usize,
    /// The size of a value, in bytes.
    pub value_bytes: usize,
    /// So many operations are one round.
    pub operations: usize,
    /// So many threads or tasks share them.
    pub workers: usize,
    /// So many connections share these.
    pub connections: usize,
    /// What tasks run on.
    pub runtime: Runtime,
    /// Whether the entries are to be stored first: else another side has done so.
    pub fill: bool,
    /// A folder or a URL, where the store has one.
    pub place: String,
    /// Which of its forms, where a side has several.
    pub form: String,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            act: Act::Hit,
            keys: 10_000,
            value_bytes: 1_024,
            operations: 100_000,
            workers: 1,
            connections: 1,
            runtime: Runtime::Workers,
            fill: true,
            place: String::new(),
            form: String::new(),
        }
    }
}

impl Scene {
    /// What [`Scene::from_arguments`] reads.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let act = match self.act {
            Act::Hit => "hit",
            Act::Set => "set",
        };
        let runtime = match self.runtime {
            Runtime::Workers => "workers",
            Runtime::Current => "current",
        };
        vec![
            format!("act={act}"),
            format!("keys={}", self.keys),
            format!("value_bytes={}", self.value_bytes),
            format!("operations={}", self.operations),
            format!("workers={}", self.workers),
            format!("connections={}", self.connections),
            format!("runtime={runtime}"),
            format!("fill={}", self.fill),
            format!("place={}", self.place),
            format!("form={}", self.form),
        ]
    }

    /// A scene; what is not named is as by default.
    ///
    /// # Errors
    /// An argument that says nothing of a scene.
    pub fn from_arguments(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let mut scene = Self::default();
        for argument in arguments {
            scene.take(&argument).map_err(|error| {
                format!(
                    "{argument} says nothing of a scene ({error}): write name=value, as keys=1000"
                )
            })?;
        }
        Ok(scene)
    }

    fn take(&mut self, argument: &str) -> Result<(), Error> {
        let (name, value) = argument.split_once('=').ok_or("no =")?;
        match name {
            "act" => {
                self.act = match value {
                    "hit" => Act::Hit,
                    "set" => Act::Set,
                    _ => return Err("hit or set".into()),
                }
            }
            "keys" => self.keys = value.parse()?,
            "value_bytes" => self.value_bytes = value.parse()?,
            "operations" => self.operations = value.parse()?,
            "workers" => self.workers = value.parse()?,
            "connections" => self.connections = value.parse()?,
            "runtime" => {
                self.runtime = match value {
                    "workers" => Runtime::Workers,
                    "current" => Runtime::Current,
                    _ => return Err("workers or current".into()),
                }
            }
            "fill" => self.fill = value.parse()?,
            "place" => value.clone_into(&mut self.place),
            "form" => value.clone_into(&mut self.form),
            _ => return Err("no such name".into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let scene = Scene {
            act: Act::Set,
            keys: 7,
            value_bytes: 8,
            operations: 9,
            workers: 10,
            connections: 11,
            runtime: Runtime::Current,
            fill: false,
            place: "/tmp/a=b".to_owned(),
            form: "managed".to_owned(),
        };
        assert_eq!(Scene::from_arguments(scene.arguments()).unwrap(), scene);
    }

    #[test]
    fn another_word_is_an_error() {
        for argument in ["keys", "keys=many", "act=clear", "colour=red"] {
            let error = Scene::from_arguments([argument.to_owned()]).unwrap_err();
            assert!(error.to_string().starts_with(argument), "{error}");
        }
    }
}
