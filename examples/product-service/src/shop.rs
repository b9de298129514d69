//! The database: SQLite, slow on purpose, shared by all instances that open the same file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Number;
use serde_json::value::RawValue;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};

/// How long to try to open a database that another instance is making.
const OPEN_TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// The products.
#[derive(Clone)]
pub struct Shop {
    pool: SqlitePool,
    slow: Duration,
}

/// Why the shop can't do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShopError {
    /// There is no product with that number.
    #[error("there is no such product")]
    NoSuchProduct,
    /// The file is no database, or can't be opened.
    #[error("can't open the database {path}: {error}; set PRODUCTS_DB to another file", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the database says.
        error: sqlx::Error,
    },
    /// The database did not do it.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The database's answer is no JSON.
    #[error(transparent)]
    Nonsense(#[from] serde_json::Error),
}

/// The fields of a product to change; those left out stay as they are.
#[derive(Debug, Deserialize)]
pub struct Change {
    name: Option<String>,
    price: Option<Number>,
}

impl Shop {
    /// Opens the database, and fills it at first. Every query of it takes `slow` longer than it must.
    ///
    /// # Errors
    /// [`ShopError::Open`] if the file is no database or can't be opened.
    pub async fn open(path: &Path, slow: Duration) -> Result<Self, ShopError> {
        let pool = open_pool(path).await.map_err(|error| ShopError::Open {
            path: path.to_owned(),
            error,
        })?;
        Ok(Self { pool, slow })
    }

    /// All products, as a JSON list.
    ///
    /// # Errors
    /// A [`ShopError`] if the database did not answer.
    pub async fn products(&self) -> Result<Box<RawValue>, ShopError> {
        tracing::info!("fetching the products from the database");
        tokio::time::sleep(self.slow).await;
        let list = sqlx::query_scalar(
            "SELECT json_group_array(json_object('id', id, 'name', name, 'price', price) ORDER BY id) FROM products",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(RawValue::from_string(list)?)
    }

    /// One product, as a JSON object.
    ///
    /// # Errors
    /// [`ShopError::NoSuchProduct`], or another if the database did not answer.
    pub async fn product(&self, id: &str) -> Result<Box<RawValue>, ShopError> {
        tracing::info!(id, "fetching a product from the database");
        tokio::time::sleep(self.slow).await;
        // Compared as text, so that `01` is no product: its entry would not be the one that an update invalidates.
        let product = sqlx::query_scalar(
            "SELECT json_object('id', id, 'name', name, 'price', price) FROM products WHERE CAST(id AS TEXT) = ?",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        Ok(RawValue::from_string(
            product.ok_or(ShopError::NoSuchProduct)?,
        )?)
    }

    /// Changes a product.
    ///
    /// # Errors
    /// As [`Shop::product`].
    pub async fn update(&self, id: &str, change: &Change) -> Result<(), ShopError> {
        let updated = sqlx::query(
            "UPDATE products SET name = coalesce(?, name), price = coalesce(?, price) WHERE CAST(id AS TEXT) = ?",
        )
        .bind(&change.name)
        // As text, which the column makes a whole number of where it is one.
        .bind(change.price.as_ref().map(Number::to_string))
        .bind(id)
        .execute(&self.pool)
        .await?;
        match updated.rows_affected() {
            0 => Err(ShopError::NoSuchProduct),
            _ => Ok(()),
        }
    }
}

/// Opens the database, and makes its table.
async fn open_pool(path: &Path) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(5));
    let mut tries = 1;
    let pool = loop {
        match SqlitePool::connect_with(options.clone()).await {
            // The change to WAL is the one thing that SQLite's own busy timeout doesn't wait for.
            Err(sqlx::Error::Database(error)) if is_locked(&*error) && tries < OPEN_TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            pool => break pool?,
        }
    };
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price NUMERIC NOT NULL)",
    )
    .execute(&pool)
    .await?;
    sqlx::query("INSERT OR IGNORE INTO products VALUES (1, 'Laptop', 999), (2, 'Mouse', 29)")
        .execute(&pool)
        .await?;
    Ok(pool)
}

fn is_locked(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.message().contains("locked")
}
