//! A host made of a script: every function that a component imports answers by its type alone, and is written down. It has
//! no effects, so that any plugin can be tried anywhere.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{LinkerInstance, Resource, ResourceAny, ResourceType, Type, Val};
use wasmtime::{AsContextMut, Engine, StoreContextMut};

use crate::plugin::State;
use crate::plugin::package::digest_of;

/// Calls after which a host that answers everything begins to fail, so that no plugin polls for ever.
const PATIENCE: usize = 5_000;
/// Stands for every resource.
struct Scripted;

/// How the host answers what can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// The least that the type allows: nothing is there.
    Empty,
    /// Policy refuses it: what can be refused after so many such calls that were answered as by `Empty`.
    DeniedAfter(usize),
    /// Nobody answers.
    Unavailable,
}

impl Answers {
    fn kind(self) -> &'static str {
        match self {
            Self::DeniedAfter(_) => "denied",
            Self::Empty | Self::Unavailable => "unavailable",
        }
    }
}

/// A script and what was called.
#[derive(Debug, Clone)]
pub struct Script {
    answers: Answers,
    calls: Arc<Mutex<Vec<String>>>,
    /// How many calls can have been refused, whether they were or not.
    refusable: Arc<AtomicUsize>,
}

impl Script {
    /// A script that nothing was called of.
    pub fn new(answers: Answers) -> Self {
        Self { answers, calls: Arc::default(), refusable: Arc::default() }
    }

    /// What was called: interface, function, and the digest of the arguments.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many calls were made that can be refused.
    pub fn refusable(&self) -> usize {
        self.refusable.load(Ordering::Relaxed)
    }

    /// Whether anything was refused.
    pub fn was_refused(&self) -> bool {
        matches!(self.answers, Answers::DeniedAfter(answered) if self.refusable() > answered)
    }

    /// Whether a call that can fail does so.
    fn fails(&self, called: usize) -> bool {
        let before = self.refusable.fetch_add(1, Ordering::Relaxed);
        match self.answers {
            Answers::Empty => called > PATIENCE,
            Answers::DeniedAfter(answered) => before >= answered || called > PATIENCE,
            Answers::Unavailable => true,
        }
    }

    /// Writes a call down; answers how many there were.
    fn write(&self, name: &str, arguments: &[Val]) -> usize {
        // A resource has no value that is the same in two runs.
        let values: Vec<String> = arguments
            .iter()
            .map(|value| match value {
                Val::Resource(_) => "resource".to_owned(),
                other => format!("{other:?}"),
            })
            .collect();
        let digest = digest_of(values.join(",").as_bytes());
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(format!("{name} {digest}"));
        calls.len()
    }

    /// A call that can be refused, as if somebody had made it.
    #[cfg(test)]
    pub(super) fn pretend(&self, name: &str) {
        let called = self.write(name, &[]);
        self.fails(called);
    }

    /// Puts everything that an interface has into a linker.
    pub fn link(
        &self,
        engine: &Engine,
        interface: &str,
        exports: &wasmtime::component::types::ComponentInstance,
        linker: &mut LinkerInstance<'_, State>,
    ) -> wasmtime::Result<()> {
        let family = interface.rsplit('/').next().and_then(|name| name.split('@').next()).unwrap_or(interface);
        for (function, item) in exports.exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let (script, name) = (self.clone(), format!("{family}.{function}"));
                    linker.func_new_async(function, move |mut context, ty, arguments, results| {
                        let (script, name) = (script.clone(), name.clone());
                        Box::new(async move {
                            let called = script.write(&name, arguments);
                            for value in arguments {
                                if let Val::Resource(lent) = value
                                    && !lent.owned()
                                {
                                    lent.resource_drop_async(&mut context).await?;
                                }
                            }
                            for (slot, ty) in results.iter_mut().zip(ty.results()) {
                                *slot = script.answer(&ty, called, &mut context)?;
                            }
                            Ok(())
                        })
                    })?;
                }
                ComponentItem::Resource(_) => {
                    linker.resource(function, ResourceType::host::<Scripted>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn answer(&self, ty: &Type, called: usize, context: &mut StoreContextMut<'_, State>) -> wasmtime::Result<Val> {
        if let Type::Result(result) = ty
            && let Some(Type::Record(error)) = result.err()
            && self.fails(called)
        {
            let fields = error.fields().map(|field| {
                let value = match field.name {
                    "kind" => Val::Variant(self.answers.kind().to_owned(), None),
                    "message" => Val::String(format!("the scripted host says {}", self.answers.kind())),
                    _ => emptiest(&field.ty, context)?,
                };
                Ok((field.name.to_owned(), value))
            });
            let fields = fields.collect::<wasmtime::Result<Vec<_>>>()?;
            return Ok(Val::Result(Err(Some(Box::new(Val::Record(fields))))));
        }
        Ok(match emptiest(ty, context)? {
            // What was made or handed in has a name; an empty one is none, and nothing could be asked about it.
            Val::Result(Ok(Some(text))) if *text == Val::String(String::new()) => {
                Val::Result(Ok(Some(Box::new(Val::String("1".to_owned())))))
            }
            least => least,
        })
    }
}

/// The least value of a type. Of variants it is one that ends something, where there is one.
fn emptiest(ty: &Type, context: &mut StoreContextMut<'_, State>) -> wasmtime::Result<Val> {
    let inner = |ty: Option<Type>, context: &mut StoreContextMut<'_, State>| {
        ty.map(|ty| emptiest(&ty, context).map(Box::new)).transpose()
    };
    Ok(match ty {
        Type::Bool => Val::Bool(false),
        Type::S8 => Val::S8(0),
        Type::U8 => Val::U8(0),
        Type::S16 => Val::S16(0),
        Type::U16 => Val::U16(0),
        Type::S32 => Val::S32(0),
        Type::U32 => Val::U32(0),
        Type::S64 => Val::S64(0),
        Type::U64 => Val::U64(0),
        Type::Float32 => Val::Float32(0.0),
        Type::Float64 => Val::Float64(0.0),
        Type::Char => Val::Char(' '),
        Type::String => Val::String(String::new()),
        Type::List(_) => Val::List(Vec::new()),
        Type::Option(_) => Val::Option(None),
        Type::Flags(_) => Val::Flags(Vec::new()),
        Type::Enum(names) => Val::Enum(names.names().next().unwrap_or_default().to_owned()),
        Type::Result(result) => Val::Result(Ok(inner(result.ok(), context)?)),
        Type::Record(record) => {
            let fields = record.fields().map(|field| Ok((field.name.to_owned(), emptiest(&field.ty, context)?)));
            Val::Record(fields.collect::<wasmtime::Result<_>>()?)
        }
        Type::Tuple(tuple) => {
            let values = tuple.types().map(|ty| emptiest(&ty, context));
            Val::Tuple(values.collect::<wasmtime::Result<_>>()?)
        }
        Type::Variant(variant) => {
            let ends = variant.cases().find(|case| matches!(case.name, "exited" | "ended" | "closed" | "failed"));
            let bare = variant.cases().find(|case| case.ty.is_none());
            let Some(case) = ends.or(bare).or_else(|| variant.cases().next()) else {
                wasmtime::bail!("a variant without cases")
            };
            Val::Variant(case.name.to_owned(), inner(case.ty, context)?)
        }
        Type::Own(_) => {
            let resource = Resource::<Scripted>::new_own(1);
            Val::Resource(ResourceAny::try_from_resource(resource, context.as_context_mut())?)
        }
        other => wasmtime::bail!("the scripted host has no value of the type {other:?}"),
    })
}
