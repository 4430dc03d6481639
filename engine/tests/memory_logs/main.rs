mod replay;
mod row;
