//! What lacks a doc comment or a date. Fields and cases need only the first: they cannot be added
//! later (`wit/types.wit`).

use wit_parser::{
    Docs, Interface, Stability, Type, TypeDef, TypeDefKind, TypeOwner, World, WorldItem, WorldKey,
};

use super::{Contract, check, wit};

#[test]
fn every_item_is_documented_and_dated() {
    check(&Contract::read(&wit()).unwrap().bare_items());
}

#[test]
fn what_is_bare_is_named() {
    let text = "
        package warren:worker@0.1.0;
        interface bare {
            record job { id: string }
            /// Documented.
            @since(version = 0.1.0)
            variant error {
                /// Documented.
                known,
                unknown(string),
            }
            /// Documented.
            @unstable(feature = tests)
            hidden: func();
            call: func();
            resource session {
                constructor();
                /// Documented.
                @since(version = 0.1.0)
                end: func();
            }
        }
        /// Documented.
        @since(version = 0.1.0)
        world worker {
            import bare;
        }";
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("bare.wit", text).unwrap();
    let mut bare = Contract { resolve, package }.bare_items();
    bare.sort();
    assert_eq!(
        bare,
        [
            "`bare.[constructor]session`: write a `///` above it",
            "`bare.[constructor]session`: write a `@since` above it",
            "`bare.call`: write a `///` above it",
            "`bare.call`: write a `@since` above it",
            "`bare.error.unknown`: write a `///` above it",
            "`bare.job.id`: write a `///` above it",
            "`bare.job`: write a `///` above it",
            "`bare.job`: write a `@since` above it",
            "`bare.session`: write a `///` above it",
            "`bare.session`: write a `@since` above it",
            "`bare`: write a `///` above it",
            "`bare`: write a `@since` above it",
            "`worker.bare`: write a `@since` above it",
        ]
    );
}

impl Contract {
    /// What is to be written, item by item.
    fn bare_items(&self) -> Vec<String> {
        let mut bare = Bare {
            contract: self,
            found: Vec::new(),
        };
        let package = &self.resolve.packages[self.package];
        for (name, &id) in &package.interfaces {
            bare.interface(name, &self.resolve.interfaces[id]);
        }
        for (name, &id) in &package.worlds {
            bare.world(name, &self.resolve.worlds[id]);
        }
        bare.found
    }
}

struct Bare<'a> {
    contract: &'a Contract,
    found: Vec<String>,
}

impl Bare<'_> {
    fn interface(&mut self, name: &str, interface: &Interface) {
        self.item(name, &interface.docs, &interface.stability);
        for (type_name, &id) in &interface.types {
            let definition = &self.contract.resolve.types[id];
            if !self.is_used(definition) {
                self.definition(&format!("{name}.{type_name}"), definition);
            }
        }
        for (function_name, function) in &interface.functions {
            let name = format!("{name}.{function_name}");
            self.item(&name, &function.docs, &function.stability);
        }
    }

    fn definition(&mut self, name: &str, definition: &TypeDef) {
        self.item(name, &definition.docs, &definition.stability);
        let members: Vec<(&String, &Docs)> = match &definition.kind {
            TypeDefKind::Record(record) => record
                .fields
                .iter()
                .map(|field| (&field.name, &field.docs))
                .collect(),
            TypeDefKind::Variant(variant) => variant
                .cases
                .iter()
                .map(|case| (&case.name, &case.docs))
                .collect(),
            TypeDefKind::Enum(cases) => cases
                .cases
                .iter()
                .map(|case| (&case.name, &case.docs))
                .collect(),
            TypeDefKind::Flags(flags) => flags
                .flags
                .iter()
                .map(|flag| (&flag.name, &flag.docs))
                .collect(),
            _ => Vec::new(),
        };
        for (member, docs) in members {
            self.documented(&format!("{name}.{member}"), docs);
        }
    }

    fn world(&mut self, name: &str, world: &World) {
        self.item(name, &world.docs, &world.stability);
        for (key, item) in world.imports.iter().chain(&world.exports) {
            if let (WorldKey::Interface(_), WorldItem::Interface { id, stability, .. }) =
                (key, item)
            {
                let interface = &self.contract.resolve.interfaces[*id];
                // What others define is dated by them, where it only comes along.
                if interface.package == Some(self.contract.package) {
                    let interface = interface.name.as_deref().unwrap_or_default();
                    self.dated(&format!("{name}.{interface}"), stability);
                }
            }
        }
    }

    fn item(&mut self, name: &str, docs: &Docs, stability: &Stability) {
        self.documented(name, docs);
        self.dated(name, stability);
    }

    fn documented(&mut self, name: &str, docs: &Docs) {
        if docs.is_empty() {
            self.found.push(format!("`{name}`: write a `///` above it"));
        }
    }

    fn dated(&mut self, name: &str, stability: &Stability) {
        if stability.is_unknown() {
            let lack = format!("`{name}`: write a `@since` above it");
            self.found.push(lack);
        }
    }

    /// Whether it is only the name of a type of another interface, by `use`.
    fn is_used(&self, definition: &TypeDef) -> bool {
        let TypeDefKind::Type(Type::Id(target)) = definition.kind else {
            return false;
        };
        let owner = self.contract.resolve.types[target].owner;
        matches!(owner, TypeOwner::Interface(_)) && owner != definition.owner
    }
}
