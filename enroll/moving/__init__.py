"""A store on its way: backup and restore, copies to another database, speakers to another instance."""
