fn main(){}
mod error; mod identity; mod os; mod spec; mod registry;
