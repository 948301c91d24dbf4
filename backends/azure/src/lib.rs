//! boxpool on Azure: the state store on Tables, instances as virtual machines, volumes as managed disks.
